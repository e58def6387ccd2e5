"""Top-k over a large vocabulary: maxima of blocks first, then the best blocks.

Sorting is what costs; a maximum over blocks of 128 reads the scores once, and the K best lie in the
K blocks of the highest maxima. The same result, ties included, as `jax.lax.top_k` and `argmax`.
"""

import jax
import jax.numpy as jnp
from jax import Array

from decode.weights import BLOCK


def blockwise_top_k(x: Array, count: int) -> tuple[Array, Array]:
    """x [B,W,V] -> the `count` highest and their places [B,W,count], lower places first."""
    vocab = x.shape[-1]
    if vocab % BLOCK or count * BLOCK >= vocab:
        return jax.lax.top_k(x, count)
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    _, best = jax.lax.top_k(_maxima(x), count)
    best = jnp.sort(best, axis=-1)  # in the vocabulary's order, so that equals keep it
    inside = jnp.take_along_axis(blocks, best[..., None], axis=-2)
    values, places = jax.lax.top_k(inside.reshape(*x.shape[:-1], -1), count)
    block = jnp.take_along_axis(best, places // BLOCK, axis=-1)
    return values, block * BLOCK + places % BLOCK


def blockwise_max(x: Array) -> Array:
    """x [B,W,V] -> the highest [B,W], by the same maxima over blocks, which are computed once."""
    return x.max(-1) if x.shape[-1] % BLOCK else _maxima(x).max(-1)


def blockwise_argmax(x: Array) -> Array:
    """x [B,W,V] -> the place of the highest [B,W] int32, the lowest place among equals."""
    if x.shape[-1] % BLOCK:
        return jnp.argmax(x, axis=-1).astype(jnp.int32)
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    best = jnp.argmax(_maxima(x), axis=-1).astype(jnp.int32)
    inside = jnp.take_along_axis(blocks, best[..., None, None], axis=-2)[..., 0, :]
    return best * BLOCK + jnp.argmax(inside, axis=-1).astype(jnp.int32)


def _maxima(x: Array) -> Array:
    # Behind the barrier, or XLA makes a maximum over these one more pass over the vocabulary.
    return jax.lax.optimization_barrier(x.reshape(*x.shape[:-1], -1, BLOCK).max(-1))
