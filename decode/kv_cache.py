"""Key-value cache of a beam search: append-only, with the ancestry of each beam.

At each position, a row's Z beams write keys and values to Z slots, beam z to slot z, and entries
never move: reordering beams changes only `ancestry`, the slot that a beam descends from at every
position. All beams of a row attend to all its slots, each through its own mask. This costs Z times
the products, but no copies, and Z queries share one read of the cache.

The cache grows by blocks of static length, one for each stage of the search, so that early steps do
not pay for late positions, and old entries are not copied.
A recurrence has one state vector per beam, its cell, which is gathered when beams are reordered.
Axes: R rows (sentences), Z slots (a sentence's beams), N positions of a block, H key heads, K, V.
A block (decode/kv_block.py) has N*Z slots: positions in order, beams within.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from decode.kv_block import Blocks, block_kind
from decode.loop import gather_beams
from model import TransformerConfig


class BeamKVCache(NamedTuple):
    """All layers' blocks, [layer][block], and ancestry [R,Z,L] int32 over their L positions.

    A recurrent layer has cells [R,Z,D] instead of blocks, and L stays 0.
    """

    layers: tuple[Blocks | Array, ...]
    ancestry: Array

    @property
    def recurrent(self) -> bool:
        return not isinstance(self.layers[0], tuple)


def init_beam_cache(config: TransformerConfig, rows: int, beams: int) -> BeamKVCache:
    """Create an empty cache; `extend` adds capacity."""
    empty: Blocks | Array = ()
    if config.recurrence:
        empty = jnp.zeros((rows, beams, config.d_model))
    return BeamKVCache((empty,) * config.decoder_layers, jnp.zeros((rows, beams, 0), jnp.int32))


def extend(
    cache: BeamKVCache, config: TransformerConfig, length: int, slots: int, dtype: Any = jnp.float32
) -> BeamKVCache:
    """Add capacity to the cache, for `length` positions of `slots` each, in `dtype`."""
    if cache.recurrent:
        return cache
    rows, _, allocated = cache.ancestry.shape
    kind, size = block_kind(), (length - allocated) * slots
    ancestry = jnp.pad(cache.ancestry, ((0, 0), (0, 0), (0, length - allocated)))
    layers = (kind.extend(x, kind.empty(config, rows, size, dtype)) for x in cache.layers)
    return BeamKVCache(tuple(layers), ancestry)


def coalesce(cache: BeamKVCache) -> BeamKVCache:
    """Concatenate the cache's blocks into one, so that every position can be written."""

    def concatenate(blocks: Blocks | Array) -> Blocks | Array:
        return (type(blocks[0]).concatenate(blocks),) if isinstance(blocks, tuple) else blocks

    return cache._replace(layers=tuple(map(concatenate, cache.layers)))


def reorder(cache: BeamKVCache, parents: Array) -> BeamKVCache:
    """Reorder beams: beam z continues beam `parents` [R,Z], of as many beams or fewer."""
    layers = tuple(x if isinstance(x, tuple) else gather_beams(x, parents) for x in cache.layers)
    return BeamKVCache(layers, gather_beams(cache.ancestry, parents))


def advance(cache: BeamKVCache, index: Array) -> tuple[BeamKVCache, tuple[Array, ...], Array]:
    """Assign every beam its slot at `index` -> the cache, attention masks, write offset.

    There is one mask per block, bool [R,beams,N*Z]; the offset of `index` is in the last block.
    """
    if cache.recurrent:
        return cache, (), index
    rows, beams, length = cache.ancestry.shape
    sizes = [block.size for block in cache.layers[0]]
    slots = sum(sizes) // length
    slot = jnp.broadcast_to(jnp.arange(beams, dtype=jnp.int32)[None, :, None], (rows, beams, 1))
    ancestry = lax.dynamic_update_slice_in_dim(cache.ancestry, slot, index, axis=2)
    visible = jnp.arange(length, dtype=jnp.int32) <= index
    ancestors = ancestry[..., None] == jnp.arange(slots, dtype=jnp.int32)[None, None, None]
    mask = (ancestors & visible[None, None, :, None]).reshape(rows, beams, length * slots)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    masks = tuple(
        mask[..., start : start + size] for start, size in zip(starts, sizes, strict=True)
    )
    return cache._replace(ancestry=ancestry), masks, index * slots - starts[-1]


def write(blocks: Blocks, k: Array, v: Array, start: Array) -> Blocks:
    """One layer's blocks with k [R,beams,H,K], v [R,beams,H,V] in the last one, from `start`."""
    *previous, last = blocks
    return (*previous, last.write(type(last).from_heads(k, v), start))
