"""Our weights in Hugging Face's Marian, the same architecture in PyTorch."""

import numpy as np
import torch
from transformers import MarianConfig, MarianMTModel

from data.batch import BOS, EOS, PAD
from model import TransformerConfig
from model.embedding import sinusoids

ACTIVATIONS = {"relu": "relu", "silu": "swish"}  # ours, and theirs
NAMES = {  # a layer's attentions and norms: theirs, and ours
    "encoder": (
        {"self_attn": "attention"},
        {"self_attn_layer_norm": "attention_frame", "final_layer_norm": "feed_forward_frame"},
    ),
    "decoder": (
        {"self_attn": "self_attention", "encoder_attn": "cross_attention"},
        {
            "self_attn_layer_norm": "self_frame",
            "encoder_attn_layer_norm": "cross_frame",
            "final_layer_norm": "feed_forward_frame",
        },
    ),
}


def marian_config(c: TransformerConfig, **more) -> MarianConfig:
    """Of the sizes of `c`, its table shared by embeddings and output, its ids ours."""
    return MarianConfig(
        vocab_size=c.vocab_size,
        d_model=c.d_model,
        encoder_layers=c.encoder_layers,
        decoder_layers=c.decoder_layers,
        encoder_ffn_dim=c.d_ff,
        decoder_ffn_dim=c.d_ff,
        encoder_attention_heads=c.num_heads,
        decoder_attention_heads=c.num_heads,
        activation_function=ACTIVATIONS[c.activation],
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
        **more,
    )


def marian(c: TransformerConfig, params, length: int = 1024) -> MarianMTModel:
    """The post-norm model of `params`, its vocabulary tied three ways, for up to `length` tokens.

    Marian's attention has biases: where ours has none, they are zero.
    """
    assert c.norm == "post" and c.tying == "all" and c.positions.startswith("sinusoidal")
    theirs = MarianMTModel(marian_config(c, max_position_embeddings=length)).eval()
    table = _tensor(params["embedding"]["table"])
    sides = theirs.model.encoder, theirs.model.decoder
    for embedding in theirs.model.shared, *(side.embed_tokens for side in sides), theirs.lm_head:
        embedding.weight.data = table
    places = sinusoids(np.arange(length), c.d_model, halves="halves" in c.positions)
    for side in sides:
        side.embed_positions.weight.data = _tensor(places)
    for side, (attentions, norms) in NAMES.items():
        for i, layer in enumerate(getattr(theirs.model, side).layers):
            own = params[f"{side}_{i}"]
            for name, ours in attentions.items():
                _attention(getattr(layer, name), own[ours])
            for name, ours in norms.items():
                _norm(getattr(layer, name), own[ours]["norm"])
            for name, ours in ("fc1", "hidden"), ("fc2", "out"):
                _linear(getattr(layer, name), **own["feed_forward"][ours])
    return theirs


def _tensor(x) -> torch.Tensor:
    return torch.from_numpy(np.array(x, np.float32))


def _linear(theirs, kernel, bias=None) -> None:
    theirs.weight.data = _tensor(np.asarray(kernel).reshape(theirs.in_features, -1).T)
    theirs.bias.data = _tensor(np.zeros(theirs.out_features) if bias is None else np.ravel(bias))


def _attention(theirs, ours) -> None:
    for name, own in ("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"):
        _linear(getattr(theirs, name), ours[own], ours.get(f"{own}_bias"))
    out = np.asarray(ours["out"])
    _linear(theirs.out_proj, out.reshape(-1, out.shape[-1]), ours.get("out_bias"))


def _norm(theirs, ours) -> None:
    theirs.weight.data, theirs.bias.data = _tensor(ours["scale"]), _tensor(ours["bias"])
