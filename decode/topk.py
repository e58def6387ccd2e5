"""Top-k over a large vocabulary: maxima of blocks first, then the best blocks.

Sorting is expensive; a maximum over blocks of 128 reads the scores once, and the K best are in the
K blocks with the highest maxima. Same results, ties included, as `jax.lax.top_k` and `argmax`.
"""

import jax
import jax.numpy as jnp
from jax import Array

from decode.weights import BLOCK


def blockwise_top_k(x: Array, count: int) -> tuple[Array, Array]:
    """Top-k of x [B,W,V]: values and indices [B,W,count]; lower indices first among equals."""
    vocab = x.shape[-1]
    if vocab % BLOCK or count * BLOCK >= vocab:
        return jax.lax.top_k(x, count)
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    _, best_blocks = jax.lax.top_k(_maxima(x), count)
    best_blocks = jnp.sort(best_blocks, axis=-1)  # in vocabulary order, for ties
    candidates = jnp.take_along_axis(blocks, best_blocks[..., None], axis=-2)
    values, positions = jax.lax.top_k(candidates.reshape(*x.shape[:-1], -1), count)
    block = jnp.take_along_axis(best_blocks, positions // BLOCK, axis=-1)
    return values, block * BLOCK + positions % BLOCK


def blockwise_max(x: Array) -> Array:
    """Maximum [B,W] of x [B,W,V]; shares its block maxima with the other functions."""
    return x.max(-1) if x.shape[-1] % BLOCK else _maxima(x).max(-1)


def blockwise_argmax(x: Array) -> Array:
    """Argmax [B,W] int32 of x [B,W,V], the lowest index among equals."""
    if x.shape[-1] % BLOCK:
        return jnp.argmax(x, axis=-1).astype(jnp.int32)
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    best_block = jnp.argmax(_maxima(x), axis=-1).astype(jnp.int32)
    candidates = jnp.take_along_axis(blocks, best_block[..., None, None], axis=-2)[..., 0, :]
    return best_block * BLOCK + jnp.argmax(candidates, axis=-1).astype(jnp.int32)


def _maxima(x: Array) -> Array:
    # Without the barrier XLA fuses a maximum over these into another pass over the vocabulary.
    return jax.lax.optimization_barrier(x.reshape(*x.shape[:-1], -1, BLOCK).max(-1))
