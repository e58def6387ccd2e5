"""Attention masks: padding, causal and segment masks; True = may attend (paper 3.2.3).

All masks have the axes [B, 1, T, S] or broadcast to them; the axis of size 1 is for the heads.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mask:
    """A mask as an array, and as the segments that fused kernels need.

    Without segments only plain attention can use it.
    """

    dense: Array  # bool [B,1,T,S] or broadcasts to it
    # Ids of queries [B,T] and keys [B,S]: equal ids may attend, padding keys have id 0.
    segments: tuple[Array, Array] | None = None
    causal: bool = field(default=False, metadata=dict(static=True))  # `dense` is causal as well


def padding_mask(valid: Array) -> Array:
    """Padding mask: queries attend to valid keys only: `valid` [..., S] bool -> [..., 1, 1, S]."""
    return valid[..., None, None, :]


def segment_mask(queries: Array, keys: Array) -> Array:
    """Segment mask: each sentence of a row attends to itself: [..., T], [..., S] -> [..., 1, T, S].

    Segments are numbered from 1; 0 is padding, which no query attends to.
    """
    same_segment = queries[..., :, None] == keys[..., None, :]
    return (same_segment & (keys != 0)[..., None, :])[..., None, :, :]


def segment_positions(segments: Array) -> Array:
    """Positions counted from the start of each segment: [..., T] -> int32 [..., T]."""
    positions = jnp.broadcast_to(jnp.arange(segments.shape[-1], dtype=jnp.int32), segments.shape)
    previous = jnp.concatenate([segments[..., :1] - 1, segments[..., :-1]], axis=-1)
    starts = jnp.where(segments != previous, positions, 0)
    return positions - jax.lax.cummax(starts, axis=segments.ndim - 1)


def causal_mask(queries: int, keys: int, index: Array | int = 0) -> Array:
    """Causal mask: the query at position `index + t` attends to keys 0 .. index + t -> [1, T, S].

    `index` is the position of a cached step (0 with teacher forcing): keys beyond it are not yet
    written, so one comparison masks both the future and the empty part of the cache.
    """
    positions = jnp.asarray(index, jnp.int32) + jnp.arange(queries, dtype=jnp.int32)
    return (jnp.arange(keys, dtype=jnp.int32)[None, :] <= positions[:, None])[None]
