"""The SSRU compared with a plain loop over positions."""

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
    init_params = Recurrent(CONFIG).init(jax.random.key(0), jnp.zeros((1, 1, 6)), None, None)[
        "params"
    ]
    noise = lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    return jax.tree.map(noise, nn.unbox(init_params))


def ssru_loop(params, x, state, starts):
    """Computes one sequence [T,D] position by position."""
    weights = jax.tree.map(np.asarray, jax.tree.leaves(params))
    candidate, bias, forget = weights
    outputs = []
    for row, is_start in zip(x, starts, strict=True):
        forget_gate = 0.0 if is_start else 1 / (1 + np.exp(-(row @ forget + bias)))
        update = (1 - 1 / (1 + np.exp(-(row @ forget + bias)))) * (row @ candidate)
        state = forget_gate * state + update
        outputs.append(np.maximum(state, 0))
    return np.stack(outputs), state


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_ssru_equals_a_plain_loop(params, length):
    x = rng.normal(size=(3, length, 6)).astype(np.float32)
    initial_state = rng.normal(size=(3, 6)).astype(np.float32)
    starts = rng.random((3, length)) < 0.3
    outputs, last_state = Recurrent(CONFIG).apply(
        {"params": params}, jnp.asarray(x), Cell(jnp.asarray(initial_state)), jnp.asarray(starts)
    )
    for b in range(3):
        expected, state = ssru_loop(params, x[b], initial_state[b], starts[b])
        np.testing.assert_allclose(outputs[b], expected, atol=1e-5)
        np.testing.assert_allclose(last_state.c[b], state, atol=1e-5)


def test_ssru_continues_from_its_state(params):
    x = jnp.asarray(rng.normal(size=(2, 3, 9, 6)), jnp.float32)
    apply = lambda x, state: Recurrent(CONFIG).apply({"params": params}, x, state, None)  # noqa: E731
    full, full_state = apply(x, None)
    head, head_state = apply(x[..., :4, :], None)
    tail, tail_state = apply(x[..., 4:, :], head_state)
    np.testing.assert_allclose(jnp.concatenate([head, tail], 2), full, atol=1e-6)
    np.testing.assert_allclose(tail_state.c, full_state.c, atol=1e-6)


def test_ssru_rejects_rotary_positions():
    with pytest.raises(ConfigError, match="decoder_mixer=ssru has no keys to rotate: set model.p"):
        TransformerConfig(decoder_mixer="ssru", positions="rotary")
