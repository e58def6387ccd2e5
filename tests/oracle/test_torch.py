"""Same weights, same logits as in PyTorch's nn.Transformer, with post and pre norm."""

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


def copy_attention(module, params):
    """Copies weights to nn.MultiheadAttention: [out, in] matrices, q, k and v fused."""
    kernels = [np.asarray(params[n]).reshape(D, D).T for n in ("query", "key", "value")]
    biases = [np.asarray(params[f"{n}_bias"]).reshape(D) for n in ("query", "key", "value")]
    module.in_proj_weight.data = tensor(np.concatenate(kernels))
    module.in_proj_bias.data = tensor(np.concatenate(biases))
    module.out_proj.weight.data = tensor(np.asarray(params["out"]).reshape(D, D).T)
    module.out_proj.bias.data = tensor(params["out_bias"])


def copy_layer(module, params, attentions, norms):
    for name, heed_name in attentions.items():
        copy_attention(getattr(module, name), params[heed_name])
    for linear, heed_name in (module.linear1, "hidden"), (module.linear2, "out"):
        linear.weight.data = tensor(np.asarray(params["feed_forward"][heed_name]["kernel"]).T)
        linear.bias.data = tensor(params["feed_forward"][heed_name]["bias"])
    for name, heed_name in norms.items():
        copy_norm(getattr(module, name), params[heed_name]["norm"])


def copy_norm(module, params):
    module.weight.data, module.bias.data = tensor(params["scale"]), tensor(params["bias"])


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
    actual = model.apply({"params": params}, jnp.asarray(SRC), jnp.asarray(TGT))

    reference = torch.nn.Transformer(
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
    for i, layer in enumerate(reference.encoder.layers):
        norms = {"norm1": "attention_residual", "norm2": "feed_forward_residual"}
        copy_layer(layer, params[f"encoder_{i}"], {"self_attn": "attention"}, norms)
    for i, layer in enumerate(reference.decoder.layers):
        attentions = {"self_attn": "self_attention", "multihead_attn": "cross_attention"}
        norms = {
            "norm1": "self_residual",
            "norm2": "cross_residual",
            "norm3": "feed_forward_residual",
        }
        copy_layer(layer, params[f"decoder_{i}"], attentions, norms)
    if norm == "pre":
        copy_norm(reference.encoder.norm, params["encoder_norm"])
        copy_norm(reference.decoder.norm, params["decoder_norm"])
    else:  # the paper has no final norm after the last layer; PyTorch adds one
        reference.encoder.norm = reference.decoder.norm = None

    table = tensor(params["embedding"]["table"])

    def embed(ids):
        angles = np.arange(ids.shape[1])[:, None] / 10_000 ** (np.arange(0, D, 2) / D)
        positions = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(-1, D)
        return table[torch.from_numpy(ids).long()] * math.sqrt(D) + tensor(positions)

    padding = torch.from_numpy(SRC == 0)
    # With gradients enabled, PyTorch avoids its fast path, which has other numerics.
    output = reference(
        embed(SRC),
        embed(TGT),
        tgt_mask=torch.triu(torch.ones(4, 4, dtype=torch.bool), 1),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    )
    expected = (output @ table.T).detach()
    np.testing.assert_allclose(actual, expected.numpy(), atol=1e-5, rtol=0)
