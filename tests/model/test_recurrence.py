"""The SSRU against a plain loop over positions, and what it may know of earlier ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import ConfigError, TransformerConfig
from model.recurrence import Cell, Recurrent

rng = np.random.default_rng(0)
CONFIG = TransformerConfig(vocab_size=9, d_model=6, num_heads=1, decoder_mixer="ssru")


@pytest.fixture(scope="module")
def params():
    made = Recurrent(CONFIG).init(jax.random.key(0), jnp.zeros((1, 1, 6)), None, None)["params"]
    noise = lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    return jax.tree.map(noise, nn.unbox(made))


def plain(params, x, state, begins):
    """One sequence [T,D], a position after the other."""
    weights = jax.tree.map(np.asarray, jax.tree.leaves(params))
    candidate, bias, forget = weights
    found = []
    for row, first in zip(x, begins, strict=True):
        keep = 0.0 if first else 1 / (1 + np.exp(-(row @ forget + bias)))
        new = (1 - 1 / (1 + np.exp(-(row @ forget + bias)))) * (row @ candidate)
        state = keep * state + new
        found.append(np.maximum(state, 0))
    return np.stack(found), state


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_it_is_the_loop(params, length):
    x = rng.normal(size=(3, length, 6)).astype(np.float32)
    past = rng.normal(size=(3, 6)).astype(np.float32)
    begins = rng.random((3, length)) < 0.3
    found, cell = Recurrent(CONFIG).apply(
        {"params": params}, jnp.asarray(x), Cell(jnp.asarray(past)), jnp.asarray(begins)
    )
    for b in range(3):
        expected, state = plain(params, x[b], past[b], begins[b])
        np.testing.assert_allclose(found[b], expected, atol=1e-5)
        np.testing.assert_allclose(cell.c[b], state, atol=1e-5)


def test_halves_of_a_sequence_are_the_whole(params):
    x = jnp.asarray(rng.normal(size=(2, 3, 9, 6)), jnp.float32)
    apply = lambda x, past: Recurrent(CONFIG).apply({"params": params}, x, past, None)  # noqa: E731
    whole, last = apply(x, None)
    first, cell = apply(x[..., :4, :], None)
    second, after = apply(x[..., 4:, :], cell)
    np.testing.assert_allclose(jnp.concatenate([first, second], 2), whole, atol=1e-6)
    np.testing.assert_allclose(after.c, last.c, atol=1e-6)


def test_it_has_nothing_to_rotate():
    with pytest.raises(ConfigError, match="decoder_mixer=ssru has no keys to rotate: set model.p"):
        TransformerConfig(decoder_mixer="ssru", positions="rotary")
