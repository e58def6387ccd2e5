"""Top-k over a large vocabulary: on a CPU maxima of blocks first, then the best blocks.

Sorting is expensive; a maximum over blocks of 128 reads the scores once, and the K best are in the
K blocks with the highest maxima. Same results, ties included, as `jax.lax.top_k` and `argmax`.
Other platforms have their own kernel for top-k, and reshaping to blocks copies the scores there
(experiments/LOG.md).
"""

import jax
import jax.numpy as jnp
from jax import Array

from decode.weights import BLOCK
from model.platform import current_platform


def blockwise_top_k(x: Array, count: int) -> tuple[Array, Array]:
    """Top-k of x [B,W,V]: values and indices [B,W,count]; lower indices first among equals."""
    vocab = x.shape[-1]
    if not _has_blocks(x) or count * BLOCK >= vocab:
        # With three axes a TPU would copy the scores.
        values, ids = jax.lax.top_k(x.reshape(-1, vocab), count)
        shape = (*x.shape[:-1], count)
        return values.reshape(shape), ids.reshape(shape)
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    _, best_blocks = jax.lax.top_k(_maxima(x), count)
    best_blocks = jnp.sort(best_blocks, axis=-1)  # in vocabulary order, for ties
    candidates = jnp.take_along_axis(blocks, best_blocks[..., None], axis=-2)
    values, positions = jax.lax.top_k(candidates.reshape(*x.shape[:-1], -1), count)
    block = jnp.take_along_axis(best_blocks, positions // BLOCK, axis=-1)
    return values, block * BLOCK + positions % BLOCK


def blockwise_max(x: Array) -> Array:
    """Maximum [B,W] of x [B,W,V]; shares its block maxima with the other functions."""
    if _has_blocks(x):
        return _maxima(x).max(-1)
    return x.reshape(-1, x.shape[-1]).max(-1).reshape(x.shape[:-1])


def blockwise_argmax(x: Array) -> Array:
    """Argmax [B,W] int32 of x [B,W,V], the lowest index among equals."""
    if not _has_blocks(x):
        ids = jnp.argmax(x.reshape(-1, x.shape[-1]), axis=-1)
        return ids.astype(jnp.int32).reshape(x.shape[:-1])
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    best_block = jnp.argmax(_maxima(x), axis=-1).astype(jnp.int32)
    candidates = jnp.take_along_axis(blocks, best_block[..., None, None], axis=-2)[..., 0, :]
    return best_block * BLOCK + jnp.argmax(candidates, axis=-1).astype(jnp.int32)


def _has_blocks(x: Array) -> bool:
    return current_platform() == "cpu" and x.shape[-1] % BLOCK == 0


def _maxima(x: Array) -> Array:
    # Without the barrier XLA fuses a maximum over these into another pass over the vocabulary.
    return jax.lax.optimization_barrier(x.reshape(*x.shape[:-1], -1, BLOCK).max(-1))
