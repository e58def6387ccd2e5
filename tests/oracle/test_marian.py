"""The same weights give the same logits, and the same translations, in Hugging Face's Marian.

Its beam search stops as `first` does (`early_stopping=True`) and divides by n^alpha (`average`).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import MarianConfig, MarianMTModel

from data.batch import BOS, EOS, PAD, UNK
from decode.options import SearchOptions
from decode.search import search
from decode.weights import pack
from model import Transformer, TransformerConfig

D, H, F, V = 32, 4, 48, 40
LIMIT = 40
LEAN = 8.0


def tensor(x):
    return torch.from_numpy(np.array(x, np.float32))


def copy_linear(theirs, kernel, bias):
    theirs.weight.data = tensor(np.asarray(kernel).reshape(theirs.in_features, -1).T)
    theirs.bias.data = tensor(np.asarray(bias).ravel())


def copy_attention(theirs, ours):
    for name, own in ("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"):
        copy_linear(getattr(theirs, name), ours[own], ours[f"{own}_bias"])
    copy_linear(theirs.out_proj, np.asarray(ours["out"]).reshape(-1, D), ours["out_bias"])


def copy_norm(theirs, ours):
    theirs.weight.data, theirs.bias.data = tensor(ours["scale"]), tensor(ours["bias"])


def copy_layer(theirs, ours, attentions, norms):
    for name, own in attentions.items():
        copy_attention(getattr(theirs, name), ours[own])
    for name, own in norms.items():
        copy_norm(getattr(theirs, name), ours[own]["norm"])
    for name, own in ("fc1", "hidden"), ("fc2", "out"):
        copy_linear(getattr(theirs, name), *(ours["feed_forward"][own][n] for n in KERNEL))


KERNEL = ("kernel", "bias")
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


@pytest.fixture(scope="module", params=[("silu", "swish"), ("relu", "relu")], ids=lambda p: p[0])
def pair(request):
    """Our model and parameters, and theirs."""
    ours, theirs = request.param
    config = TransformerConfig(
        vocab_size=V,
        encoder_layers=2,
        decoder_layers=3,
        d_model=D,
        d_ff=F,
        num_heads=H,
        positions="sinusoidal_halves",
        activation=ours,
        attention_bias=True,
        norm_epsilon=1e-5,
    )
    model, ids = Transformer(config), jnp.ones((1, 2), jnp.int32)
    params = nn.unbox(model.init(jax.random.key(0), ids, ids))["params"]
    noise = lambda p: 1.5 * p + 0.2 * jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    params = jax.tree.map(noise, params)
    # The last bias leans to EOS, or random models hardly ever end.
    last, eos = params["decoder_2"]["feed_forward_frame"]["norm"], params["embedding"]["table"][EOS]
    last["bias"] += LEAN * eos / jnp.square(eos).sum()
    marian = MarianMTModel(
        MarianConfig(
            vocab_size=V,
            d_model=D,
            encoder_layers=2,
            decoder_layers=3,
            encoder_ffn_dim=F,
            decoder_ffn_dim=F,
            encoder_attention_heads=H,
            decoder_attention_heads=H,
            activation_function=theirs,
            scale_embedding=True,
            share_encoder_decoder_embeddings=True,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            eos_token_id=EOS,
            bos_token_id=BOS,
            decoder_start_token_id=BOS,
            forced_eos_token_id=None,
            max_position_embeddings=64,
        )
    ).eval()
    table = tensor(params["embedding"]["table"])
    for embedding in (marian.model.shared, marian.model.encoder.embed_tokens,
                      marian.model.decoder.embed_tokens, marian.lm_head):  # fmt: skip
        embedding.weight.data = table
    for side, names in NAMES.items():
        for i, layer in enumerate(getattr(marian.model, side).layers):
            copy_layer(layer, params[f"{side}_{i}"], *names)
    return model, params, marian


def sources(count, seed=0):
    random = np.random.default_rng(seed)
    src = random.integers(4, V, (count, 9)).astype(np.int32)
    for row, end in zip(src, random.integers(1, 9, count), strict=True):
        row[end], row[end + 1 :] = EOS, PAD
    return src


def test_logits_are_equal(pair):
    model, params, marian = pair
    src = sources(6)
    tgt = np.concatenate([np.full((6, 1), BOS, np.int32), sources(6, 1)[:, :5]], 1)
    ours = model.apply({"params": params}, jnp.asarray(src), jnp.asarray(tgt))
    with torch.no_grad():
        theirs = marian(
            input_ids=torch.from_numpy(src).long(),
            attention_mask=torch.from_numpy(src != PAD).long(),
            decoder_input_ids=torch.from_numpy(tgt).long(),
        ).logits
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("beams", "alpha"), [(1, 1.0), (4, 0.6), (4, 1.0), (6, 1.0)])
def test_translations_are_equal(pair, beams, alpha):
    model, params, marian = pair
    src = sources(60, seed=2)
    options = SearchOptions(beam_size=beams, penalty="average", alpha=alpha, n_best=beams)
    found = jax.jit(
        lambda src: search(
            [model.config],
            [pack(model.config, params)],
            src,
            jnp.full(len(src), LIMIT, jnp.int32),
            jnp.zeros((len(src), 0), jnp.int32),
            jax.random.split(jax.random.key(0), len(src)),
            options=options,
            max_length=LIMIT,
        )
    )(jnp.asarray(src))
    with torch.no_grad():
        theirs = marian.generate(
            torch.from_numpy(src).long(),
            attention_mask=torch.from_numpy(src != PAD).long(),
            num_beams=beams,
            length_penalty=alpha,
            early_stopping=beams > 1,
            max_new_tokens=LIMIT,
            suppress_tokens=[PAD, BOS, UNK],
            do_sample=False,
        ).numpy()[:, 1:]
    ended = 0
    for row, length, other in zip(found.tokens[:, 0], found.lengths[:, 0], theirs, strict=True):
        if length < LIMIT:  # at the limit Marian cuts, and we end
            ended += 1
            assert row[:length].tolist() == other[:length].tolist()
            assert set(other[length:]) <= {PAD, EOS}
    assert ended >= 20
