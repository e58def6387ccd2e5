"""The same weights give the same logits in PyTorch's nn.Transformer, post and pre norm."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from model import Transformer, TransformerConfig

SRC = np.array([[5, 6, 7, 2, 0, 0], [9, 4, 8, 11, 3, 2]], np.int32)
TGT = np.array([[1, 5, 6, 7], [1, 8, 9, 10]], np.int32)
D, H = 32, 4


def tensor(x):
    return torch.from_numpy(np.array(x, np.float32))


def copy_attention(theirs, ours):
    """nn.MultiheadAttention keeps [out, in] matrices and q, k, v in one."""
    kernels = [np.asarray(ours[n]).reshape(D, D).T for n in ("query", "key", "value")]
    biases = [np.asarray(ours[f"{n}_bias"]).reshape(D) for n in ("query", "key", "value")]
    theirs.in_proj_weight.data = tensor(np.concatenate(kernels))
    theirs.in_proj_bias.data = tensor(np.concatenate(biases))
    theirs.out_proj.weight.data = tensor(np.asarray(ours["out"]).reshape(D, D).T)
    theirs.out_proj.bias.data = tensor(ours["out_bias"])


def copy_layer(theirs, ours, attentions, norms):
    for name, own in attentions.items():
        copy_attention(getattr(theirs, name), ours[own])
    for linear, own in (theirs.linear1, "hidden"), (theirs.linear2, "out"):
        linear.weight.data = tensor(np.asarray(ours["feed_forward"][own]["kernel"]).T)
        linear.bias.data = tensor(ours["feed_forward"][own]["bias"])
    for name, own in norms.items():
        copy_norm(getattr(theirs, name), ours[own]["norm"])


def copy_norm(theirs, ours):
    theirs.weight.data, theirs.bias.data = tensor(ours["scale"]), tensor(ours["bias"])


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_logits_equal_nn_transformer(norm, activation):
    config = TransformerConfig(
        vocab_size=40,
        encoder_layers=3,
        decoder_layers=2,
        d_model=D,
        d_ff=64,
        num_heads=H,
        norm=norm,
        norm_epsilon=1e-5,
        attention_bias=True,
        activation=activation,
    )
    model = Transformer(config)
    params = nn.unbox(model.init(jax.random.key(0), jnp.asarray(SRC), jnp.asarray(TGT)))["params"]
    noise = lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    params = jax.tree.map(noise, params)
    ours = model.apply({"params": params}, jnp.asarray(SRC), jnp.asarray(TGT))

    theirs = torch.nn.Transformer(
        D,
        H,
        3,
        2,
        64,
        dropout=0.0,
        activation=activation,
        layer_norm_eps=1e-5,
        batch_first=True,
        norm_first=norm == "pre",
    ).eval()
    for i, layer in enumerate(theirs.encoder.layers):
        norms = {"norm1": "attention_residual", "norm2": "feed_forward_residual"}
        copy_layer(layer, params[f"encoder_{i}"], {"self_attn": "attention"}, norms)
    for i, layer in enumerate(theirs.decoder.layers):
        attentions = {"self_attn": "self_attention", "multihead_attn": "cross_attention"}
        norms = {
            "norm1": "self_residual",
            "norm2": "cross_residual",
            "norm3": "feed_forward_residual",
        }
        copy_layer(layer, params[f"decoder_{i}"], attentions, norms)
    if norm == "pre":
        copy_norm(theirs.encoder.norm, params["encoder_norm"])
        copy_norm(theirs.decoder.norm, params["decoder_norm"])
    else:  # the paper's stacks end with their last layer's norm; PyTorch adds one more
        theirs.encoder.norm = theirs.decoder.norm = None

    table = tensor(params["embedding"]["table"])

    def embed(ids):
        angles = np.arange(ids.shape[1])[:, None] / 10_000 ** (np.arange(0, D, 2) / D)
        positions = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(-1, D)
        return table[torch.from_numpy(ids).long()] * math.sqrt(D) + tensor(positions)

    padding = torch.from_numpy(SRC == 0)
    # With gradients on, PyTorch keeps off its inference shortcut, which is another formula.
    output = theirs(
        embed(SRC),
        embed(TGT),
        tgt_mask=torch.triu(torch.ones(4, 4, dtype=torch.bool), 1),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    )
    expected = (output @ table.T).detach()
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5, rtol=0)
