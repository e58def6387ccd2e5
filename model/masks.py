"""Attention masks: padding, causal and segment masks; True = may attend (paper 3.2.3).

All masks have the axes [B, 1, T, S] or broadcast to them, the 1 standing for the heads.
"""

import jax
import jax.numpy as jnp
from jax import Array


def padding_mask(valid: Array) -> Array:
    """Every query may attend to the real keys: `valid` [..., S] bool -> [..., 1, 1, S]."""
    return valid[..., None, None, :]


def segment_mask(queries: Array, keys: Array) -> Array:
    """Sentences of one row attend to themselves alone: [..., T], [..., S] -> [..., 1, T, S].

    Segments are numbered from 1; 0 is padding, which is attended to by none.
    """
    same = queries[..., :, None] == keys[..., None, :]
    return (same & (keys != 0)[..., None, :])[..., None, :, :]


def segment_positions(segments: Array) -> Array:
    """Each position counted from its segment's first: [..., T] -> int32 [..., T]."""
    places = jnp.broadcast_to(jnp.arange(segments.shape[-1], dtype=jnp.int32), segments.shape)
    before = jnp.concatenate([segments[..., :1] - 1, segments[..., :-1]], axis=-1)
    starts = jnp.where(segments != before, places, 0)
    return places - jax.lax.cummax(starts, axis=segments.ndim - 1)


def causal_mask(queries: int, keys: int, index: Array | int = 0) -> Array:
    """The query at position `index + t` may attend to keys 0 .. index + t -> [1, T, S].

    `index` is the cursor of a cached step (0 when teacher-forced): keys beyond it are not yet
    written, so one comparison hides both the future and the empty part of the cache.
    """
    positions = jnp.asarray(index, jnp.int32) + jnp.arange(queries, dtype=jnp.int32)
    return (jnp.arange(keys, dtype=jnp.int32)[None, :] <= positions[:, None])[None]
