"""One layer of any stack as a function of its parts (paper 3.1 to 3.3).

Training, prefill and cached steps all call `layer`. A part is a callable that encapsulates the
layout and dtype of its weights: a bound Flax module in training; fused, cast or int8 matrices in
decoding. A `Memory` encapsulates the keys and values that queries attend to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from jax import Array

from model.activations import ACTIVATIONS
from model.residual import Sublayer


class Memory(Protocol):
    """Keys and values to attend to: all positions at once, a KV cache, or a beam search's cache."""

    def attend(self, q: Array, k: Array, v: Array) -> tuple[Array, Any]:
        """Add this call's keys and values, then attend -> weighted values, the updated memory."""


class Layer(NamedTuple):
    """The parts of a layer; encoder and decoder-only layers have no cross-attention."""

    mix: Callable[[Array, Any], tuple[Array, Any]]  # self-attention or a recurrence
    feed_forward: Sublayer
    mix_residual: Callable[[Array, Sublayer], Array]
    feed_forward_residual: Callable[[Array, Sublayer], Array]
    cross: Sublayer | None = None
    cross_residual: Callable[[Array, Sublayer], Array] | None = None


def layer(parts: Layer, x: Array, state: Any) -> tuple[Array, Any]:
    """Apply one layer: x [...,D] and the state of earlier positions -> x and the new state.

    The state is the `Memory` of an attention layer or the cell of a recurrent one.
    """

    def mix(x: Array) -> Array:
        nonlocal state
        x, state = parts.mix(x, state)
        return x

    x = parts.mix_residual(x, mix)
    if parts.cross is not None:
        assert parts.cross_residual is not None
        x = parts.cross_residual(x, parts.cross)
    return parts.feed_forward_residual(x, parts.feed_forward), state


def self_attention(
    qkv: Callable[[Array], tuple[Array, Array, Array]], out: Sublayer, x: Array, memory: Memory
) -> tuple[Array, Any]:
    """Self-attention: `qkv(x)` are queries, keys and values; `out` projects the weighted values."""
    with jax.named_scope("projections"):
        q, k, v = qkv(x)
    mixed, memory = memory.attend(q, k, v)
    with jax.named_scope("projections"):
        return out(mixed), memory


def feed_forward(
    activation: str,
    hidden: Sublayer,
    gate: Sublayer | None,
    out: Sublayer,
    drop: Sublayer,
    x: Array,
) -> Array:
    """max(0, x W1 + b1) W2 + b2 (paper 3.3), or another activation, gated or not (Shazeer 2020).

    The projections have the names of their parameters. Only gated activations use `gate`; `drop` is
    applied to the hidden units.
    """
    kind = ACTIVATIONS[activation]
    with jax.named_scope("feed_forward"):
        units = kind.function(hidden(x))
        if kind.gated:
            assert gate is not None
            units *= gate(x)
        return out(drop(units))
