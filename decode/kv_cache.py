"""Key-value cache of a beam search: append-only, with the ancestry of each beam.

A row's Z beams write what they see at a position into Z slots, beam z into slot z, and nothing is
ever moved: when beams are reordered, so is only `ancestry`, which slot of every position a beam
descends from. All beams of a row attend to all its slots, each through its own mask: Z times the
products, in exchange for no copy at all and for one read of the cache by Z queries together.

The cache grows by blocks of static length, a stage of the search each, so that early steps do not
pay for late positions, and what is old is not copied.
A recurrence remembers one vector a beam, its cell, and beams that are reordered take theirs along.
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

    Of recurrent layers each is its cells [R,Z,D], and L stays 0.
    """

    layers: tuple[tuple[KVBlock, ...] | Array, ...]
    ancestry: Array

    @property
    def recurrent(self) -> bool:
        return not isinstance(self.layers[0], tuple)


def init_beam_cache(config: TransformerConfig, rows: int, beams: int) -> BeamKVCache:
    """An empty cache: `extend` makes room."""
    nothing: tuple[KVBlock, ...] | Array = ()
    if config.recurrence:
        nothing = jnp.zeros((rows, beams, config.d_model))
    return BeamKVCache((nothing,) * config.decoder_layers, jnp.zeros((rows, beams, 0), jnp.int32))


def extend(cache: BeamKVCache, config: TransformerConfig, length: int, slots: int) -> BeamKVCache:
    """The cache with one more block, so that it has room for `length` positions of `slots` each."""
    if cache.recurrent:
        return cache
    rows, _, there = cache.ancestry.shape
    room = (length - there) * slots
    heads = (rows, config.kv_heads)
    block = lambda: KVBlock(  # noqa: E731
        jnp.zeros((*heads, config.key_width, room)),
        jnp.zeros((*heads, room, config.value_width)),
    )
    ancestry = jnp.pad(cache.ancestry, ((0, 0), (0, 0), (0, length - there)))
    return BeamKVCache(tuple((*blocks, block()) for blocks in cache.layers), ancestry)


def coalesce(cache: BeamKVCache) -> BeamKVCache:
    """The same cache in one block, so that every position of it can be written."""

    def one(blocks: tuple[KVBlock, ...] | Array) -> tuple[KVBlock] | Array:
        if not isinstance(blocks, tuple):
            return blocks
        keys, values = zip(*blocks, strict=True)
        return (KVBlock(jnp.concatenate(keys, axis=3), jnp.concatenate(values, axis=2)),)

    return cache._replace(layers=tuple(map(one, cache.layers)))


def reorder(cache: BeamKVCache, parents: Array) -> BeamKVCache:
    """The cache in which beam z continues beam `parents` [R,Z], of as many beams or fewer."""
    layers = tuple(x if isinstance(x, tuple) else gather_beams(x, parents) for x in cache.layers)
    return BeamKVCache(layers, gather_beams(cache.ancestry, parents))


def advance(cache: BeamKVCache, index: Array) -> tuple[BeamKVCache, tuple[Array, ...], Array]:
    """Give every beam its own slot at `index`; returns one attention mask per block as well.

    The masks are bool [R,beams,N*Z]; after them, where `index` is in the last block.
    """
    if cache.recurrent:
        return cache, (), index
    rows, beams, length = cache.ancestry.shape
    sizes = [block.k.shape[-1] for block in cache.layers[0]]
    slots = sum(sizes) // length
    own = jnp.broadcast_to(jnp.arange(beams, dtype=jnp.int32)[None, :, None], (rows, beams, 1))
    ancestry = lax.dynamic_update_slice_in_dim(cache.ancestry, own, index, axis=2)
    past = jnp.arange(length, dtype=jnp.int32) <= index
    mine = ancestry[..., None] == jnp.arange(slots, dtype=jnp.int32)[None, None, None]
    mask = (mine & past[None, None, :, None]).reshape(rows, beams, length * slots)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    masks = tuple(mask[..., at : at + size] for at, size in zip(starts, sizes, strict=True))
    return cache._replace(ancestry=ancestry), masks, index * slots - starts[-1]


def write(blocks: tuple[KVBlock, ...], k: Array, v: Array, at: Array) -> tuple[KVBlock, ...]:
    """One layer's blocks with k [R,beams,H,K], v [R,beams,H,V] in the last one, from `at` on."""
    *old, (keys, values) = blocks
    keys = lax.dynamic_update_slice_in_dim(keys, k.transpose(0, 2, 3, 1), at, axis=3)
    values = lax.dynamic_update_slice_in_dim(values, v.transpose(0, 2, 1, 3), at, axis=2)
    return (*old, KVBlock(keys, values))
