"""Key-value cache of a beam search: append-only, with the ancestry of each beam.

At each position, a row's Z beams write keys and values to Z slots, beam z to slot z, and entries
never move: reordering beams changes only `ancestry`, the slot that a beam descends from at every
position. All beams of a row attend to all its slots, each through its own mask. This costs Z times
the products, but no copies, and Z queries share one read of the cache.

The cache grows by blocks of static length, one for each stage of the search, so that early steps do
not pay for late positions, and old entries are not copied.
A recurrence has one state vector per beam, its cell, which is gathered when beams are reordered.
Axes: R rows (sentences), Z slots (a sentence's beams), N positions of a block, H key heads, K, V.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from decode.loop import gather_beams
from model import TransformerConfig


class KVBlock(NamedTuple):
    """One layer's keys [R,H,K,N*Z] and values [R,H,N*Z,V], positions in order, slots within."""

    k: Array
    v: Array


class BeamKVCache(NamedTuple):
    """All layers' blocks, [layer][block], and ancestry [R,Z,L] int32 over their L positions.

    A recurrent layer has cells [R,Z,D] instead of blocks, and L stays 0.
    """

    layers: tuple[tuple[KVBlock, ...] | Array, ...]
    ancestry: Array

    @property
    def recurrent(self) -> bool:
        return not isinstance(self.layers[0], tuple)


def init_beam_cache(config: TransformerConfig, rows: int, beams: int) -> BeamKVCache:
    """Create an empty cache; `extend` adds capacity."""
    empty: tuple[KVBlock, ...] | Array = ()
    if config.recurrence:
        empty = jnp.zeros((rows, beams, config.d_model))
    return BeamKVCache((empty,) * config.decoder_layers, jnp.zeros((rows, beams, 0), jnp.int32))


def extend(cache: BeamKVCache, config: TransformerConfig, length: int, slots: int) -> BeamKVCache:
    """Add a block to the cache, for a capacity of `length` positions of `slots` each."""
    if cache.recurrent:
        return cache
    rows, _, allocated = cache.ancestry.shape
    size = (length - allocated) * slots
    heads = (rows, config.kv_heads)
    block = lambda: KVBlock(  # noqa: E731
        jnp.zeros((*heads, config.key_width, size)),
        jnp.zeros((*heads, size, config.value_width)),
    )
    ancestry = jnp.pad(cache.ancestry, ((0, 0), (0, 0), (0, length - allocated)))
    return BeamKVCache(tuple((*blocks, block()) for blocks in cache.layers), ancestry)


def coalesce(cache: BeamKVCache) -> BeamKVCache:
    """Concatenate the cache's blocks into one, so that every position can be written."""

    def concatenate(blocks: tuple[KVBlock, ...] | Array) -> tuple[KVBlock] | Array:
        if not isinstance(blocks, tuple):
            return blocks
        keys, values = zip(*blocks, strict=True)
        return (KVBlock(jnp.concatenate(keys, axis=3), jnp.concatenate(values, axis=2)),)

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
    sizes = [block.k.shape[-1] for block in cache.layers[0]]
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


def write(blocks: tuple[KVBlock, ...], k: Array, v: Array, start: Array) -> tuple[KVBlock, ...]:
    """One layer's blocks with k [R,beams,H,K], v [R,beams,H,V] in the last one, from `start`."""
    *previous, (keys, values) = blocks
    keys = lax.dynamic_update_slice_in_dim(keys, k.transpose(0, 2, 3, 1), start, axis=3)
    values = lax.dynamic_update_slice_in_dim(values, v.transpose(0, 2, 1, 3), start, axis=2)
    return (*previous, KVBlock(keys, values))
