"""Position encodings: sinusoidal, learned, rotary, relative (paper 3.5).

A new kind needs only a row of `POSITIONS`: its name is a value of `model.positions`.
Axes: T positions, D d_model, H heads, K head width; `...` stands for the batch axes.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

if TYPE_CHECKING:
    from model.config import TransformerConfig


class PositionKind(NamedTuple):
    """A kind of position encoding; each kind sets exactly one field."""

    encode: Callable[[Array, int], Array] | None = None  # added, as `sinusoids`
    table: bool = False  # added: rows of a learned table [model.max_length, D]
    rotate: Callable[[Array, Array], Array] | None = None  # queries and keys, as `apply_rope`
    bias: bool = False  # added to attention scores: model/relative_position_bias.py


def sinusoids(
    positions: Array | np.ndarray, width: int, concatenated: bool = False, inclusive: bool = False
) -> Array:
    """sin and cos of positions [...,T] at wavelengths from 2 pi to 10000 * 2 pi: float32 [...,T,D].

    Interleaved as in the paper (sin at 2i, cos at 2i + 1), or `concatenated`: all sines, then all
    cosines, as in Hugging Face's Marian models. With the paper's formula the longest wavelength is
    slightly less than 10000 * 2 pi; with `inclusive` it is exactly that, as in tensor2tensor,
    fairseq and Marian itself.
    """
    steps = max(width - 2, 1) if inclusive else width
    frequencies = np.exp(np.arange(0, width, 2) * (-math.log(10_000.0) / steps)).astype(np.float32)
    rates = jnp.expand_dims(jnp.asarray(frequencies), tuple(range(positions.ndim)))
    angles = positions.astype(jnp.float32)[..., None] * rates
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    if concatenated:
        return jnp.concatenate([sin, cos], axis=-1)
    return jnp.stack([sin, cos], axis=-1).reshape(*positions.shape, width)


def apply_rope(x: Array, positions: Array) -> Array:
    """Rotary positions (Su et al. 2021): rotate x [...,H,T,K] by angles proportional to position.

    Positions are [T], or [B,T] if x is [B,H,T,K]. Entries i and K/2 + i form a pair, rotated by
    position / 10000^(2i/K); products of queries and keys then depend only on the distance of their
    positions.
    """
    encodings = sinusoids(positions, x.shape[-1], concatenated=True)
    if positions.ndim > 1:
        encodings = encodings[:, None]  # for all heads
    encodings = jnp.expand_dims(encodings, tuple(range(x.ndim - encodings.ndim)))
    sin, cos = jnp.split(encodings, 2, axis=-1)
    first_half, second_half = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate(
        [first_half * cos - second_half * sin, second_half * cos + first_half * sin], axis=-1
    )
    return rotated.astype(x.dtype)


POSITIONS: dict[str, PositionKind] = {
    "sinusoidal": PositionKind(encode=sinusoids),
    "sinusoidal_concat": PositionKind(encode=partial(sinusoids, concatenated=True)),
    "sinusoidal_tensor2tensor": PositionKind(
        encode=partial(sinusoids, concatenated=True, inclusive=True)
    ),
    "learned": PositionKind(table=True),
    "rotary": PositionKind(rotate=apply_rope),
    "t5_bias": PositionKind(bias=True),
}


def add_positions(
    config: "TransformerConfig", x: Array, positions: Array, table: Array | None = None
) -> Array:
    """Add position encodings for positions [T] or [B,T] to embeddings x [...,T,D], if any.

    `table` [L,D] is the learned position table, if the model has one.
    """
    kind = POSITIONS[config.positions]
    if kind.table:
        assert table is not None
        added = jnp.take(table, positions, axis=0, mode="clip")
    elif kind.encode:
        offset = config.position_offset
        added = kind.encode(positions + offset if offset else positions, config.d_model)
    else:
        return x
    return x + jnp.expand_dims(added.astype(x.dtype), tuple(range(x.ndim - added.ndim)))


def rotate_qk(config: "TransformerConfig", x: Array, positions: Array) -> Array:
    """Rotate queries or keys [...,H,T,K] if the model has rotary positions."""
    function = POSITIONS[config.positions].rotate
    return x if function is None else function(x, positions)
