"""Attention, positions, norms and dropout against plain loops over numpy arrays."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import TransformerConfig
from model.activations import ACTIVATIONS
from model.attention import KV, MultiHeadAttention, attention_weights, weighted_values
from model.dropout import Dropout, keep_mask
from model.embedding import PositionEmbedding
from model.layers import FeedForward
from model.masks import Mask, causal_mask, padding_mask
from model.norm import Norm
from model.positions import apply_rope, sinusoids

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_attention_equals_a_plain_loop(heads, kv_heads):
    q, k, v = normal(2, heads, 3, 8), normal(2, kv_heads, 5, 8), normal(2, kv_heads, 5, 6)
    mask = rng.random((2, 1, 3, 5)) < 0.7
    mask[..., 0] = True
    output = weighted_values(attention_weights(*map(jnp.asarray, (q, k, mask))), jnp.asarray(v))
    for b in range(2):
        for h in range(heads):
            kv_head = h // (heads // kv_heads)
            for t in range(3):
                scores = k[b, kv_head] @ q[b, h, t] / np.sqrt(8)
                e = np.where(mask[b, 0, t], np.exp(scores), 0)
                expected = (e / e.sum()) @ v[b, kv_head]
                np.testing.assert_allclose(output[b, h, t], expected, atol=1e-5)


def test_masks():
    np.testing.assert_array_equal(causal_mask(3, 3)[0], np.tril(np.ones((3, 3), bool)))
    np.testing.assert_array_equal(causal_mask(2, 5, 2)[0], [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    assert padding_mask(jnp.ones((2, 5), bool)).shape == (2, 1, 1, 5)


def test_a_cache_is_written_at_the_cursor():
    empty = KV(jnp.zeros((1, 1, 4, 2)), jnp.zeros((1, 1, 4, 3)))
    cache = empty.write(KV(jnp.ones((1, 1, 2, 2)), jnp.ones((1, 1, 2, 3))), 1)
    np.testing.assert_array_equal(cache.k[0, 0, :, 0], [0, 1, 1, 0])
    np.testing.assert_array_equal(cache.v[0, 0, :, 2], [0, 1, 1, 0])


def test_sinusoids_follow_the_papers_formula():
    positions = np.array([0, 1, 7, 200])
    interleaved = np.asarray(sinusoids(jnp.asarray(positions, jnp.int32), 6))
    concatenated = np.asarray(sinusoids(jnp.asarray(positions, jnp.int32), 6, concatenated=True))
    for row, p in enumerate(positions):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            np.testing.assert_allclose(interleaved[row, 2 * i], np.sin(angle), atol=1e-4)
            np.testing.assert_allclose(interleaved[row, 2 * i + 1], np.cos(angle), atol=1e-4)
    np.testing.assert_array_equal(
        concatenated, np.concatenate([interleaved[:, ::2], interleaved[:, 1::2]], 1)
    )
    inclusive = np.asarray(
        sinusoids(jnp.asarray(positions, jnp.int32), 6, concatenated=True, inclusive=True)
    )
    angles = positions[:, None] * [1, 1e-2, 1e-4]  # wavelengths up to 10,000 * 2 pi, inclusive
    np.testing.assert_allclose(
        inclusive, np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-4
    )


@pytest.mark.parametrize("positions", [[0, 1, 5], [[0, 1, 2], [0, 1, 0]]])
def test_sinusoids_apply_the_position_offset(positions):
    options = dict(positions="sinusoidal_tensor2tensor", position_offset=2)
    config = TransformerConfig(d_model=6, num_heads=1, **options)
    positions = np.array(positions)
    x = jnp.zeros((*positions.shape, 6))
    encodings = PositionEmbedding(config).apply({}, x, jnp.asarray(positions, jnp.int32))
    from_two = jnp.asarray(positions + 2, jnp.int32)
    np.testing.assert_array_equal(
        encodings, sinusoids(from_two, 6, concatenated=True, inclusive=True)
    )


def test_rotary_scores_depend_only_on_distance():
    q, k = jnp.asarray(normal(1, 1, 8)), jnp.asarray(normal(1, 1, 8))

    def product(i, j):
        rotate = lambda x, p: apply_rope(x, jnp.array([p], jnp.int32))  # noqa: E731
        return float((rotate(q, i) * rotate(k, j)).sum())

    assert np.isclose(product(3, 1), product(12, 10), atol=1e-5)
    assert not np.isclose(product(3, 1), product(3, 2), atol=1e-3)
    np.testing.assert_allclose(product(0, 0), float((q * k).sum()), atol=1e-6)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms(kind):
    x = normal(3, 16) * 3 + 1
    norm = Norm(TransformerConfig(d_model=16, norm_kind=kind, norm_epsilon=1e-5))
    normalized, _ = norm.init_with_output(jax.random.key(0), jnp.asarray(x))
    centered = x - x.mean(-1, keepdims=True) if kind == "layer" else x
    expected = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(normalized, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [*ACTIVATIONS])
def test_feed_forward_activations(kind):
    erf = np.vectorize(math.erf)
    plain = {
        "relu": lambda x: np.maximum(x, 0),
        "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
        "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
        "silu": lambda x: x / (1 + np.exp(-x)),
    }
    gates = {"reglu": "relu", "geglu": "gelu", "geglu_tanh": "gelu_tanh", "swiglu": "silu"}
    layer = FeedForward(TransformerConfig(d_model=8, d_ff=12, num_heads=2, activation=kind))
    x = normal(2, 3, 8)
    variables = layer.init(jax.random.key(0), jnp.asarray(x), train=False)
    w = jax.tree.map(np.asarray, nn.unbox(variables)["params"])
    hidden = plain[gates.get(kind, kind)](x @ w["hidden"]["kernel"] + w["hidden"]["bias"])
    if kind in gates:
        hidden = hidden * (x @ w["gate"]["kernel"] + w["gate"]["bias"])
    expected = hidden @ w["out"]["kernel"] + w["out"]["bias"]
    output = layer.apply(variables, jnp.asarray(x), train=False)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_dropout_masks_have_the_right_rate_and_no_pattern():
    mask = np.asarray(keep_mask(jax.random.key(0), 0.1, (400, 255)))
    assert mask.shape == (400, 255) and abs(mask.mean() - 0.9) < 0.004
    assert abs((mask[:, :-1] & mask[:, 1:]).mean() - 0.81) < 0.006
    assert abs((mask[:-1] & mask[1:]).mean() - 0.81) < 0.006
    # Entries from the same hash value: two halves of two words.
    parts = np.stack([mask[:, start : start + 63] for start in range(0, 256, 64)])
    for shift in 1, 2, 3:
        assert abs((parts & np.roll(parts, shift, 0)).mean() - 0.81) < 0.006
    assert (mask != np.asarray(keep_mask(jax.random.key(1), 0.1, (400, 255)))).any()


def test_all_rows_of_a_dropout_mask_differ():
    mask = np.asarray(keep_mask(jax.random.key(0), 0.5, (3, 5, 7, 64)))
    assert len(np.unique(mask.reshape(-1, 64), axis=0)) == 3 * 5 * 7
    assert keep_mask(jax.random.key(0), 0.5, (6,)).shape == (6,)


@pytest.mark.parametrize("bits", [16, 32])
def test_dropout_rescales_kept_values(bits):
    ones, rngs = jnp.ones((200, 300)), {"dropout": jax.random.key(0)}
    dropped = Dropout(0.3, bits).apply({}, ones, train=True, rngs=rngs)
    assert set(np.unique(dropped).tolist()) == {0.0, float(jnp.float32(1) / jnp.float32(0.7))}
    assert abs(float(dropped.mean()) - 1) < 0.01
    expected_mask = jax.random.bernoulli(_dropout_key(rngs["dropout"]), 0.7, ones.shape)
    assert bool((expected_mask == (dropped > 0)).all()) is (bits == 32)


def _dropout_key(key):
    """The dropout key that an unnamed module derives from `key`."""
    return Draw().apply({}, rngs={"dropout": key})


class Draw(nn.Module):
    """Returns its dropout key."""

    @nn.compact
    def __call__(self):
        return self.make_rng("dropout")


def test_projections_are_initialized_within_xavier_bounds():
    config = TransformerConfig(d_model=64, num_heads=4)
    layer = MultiHeadAttention(config)
    x = jnp.zeros((1, 2, 64))
    mask = Mask(jnp.ones((1, 1, 2, 2), bool))
    attend = lambda m, x: m.attend(x, m.kv(x), mask)  # noqa: E731
    params = nn.unbox(layer.init(jax.random.key(0), x, method=attend))
    bound = math.sqrt(6 / (64 + 64))  # of a [D, H K] matrix, whatever its layout
    for name, kernel in params["params"].items():
        assert 0.97 * bound < jnp.abs(kernel).max() <= bound, name
