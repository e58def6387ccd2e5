"""Blocks of keys and values as attention in decoding reads them; one layout per platform.

Axes: R rows of the cache, H key heads, Q queries of a key head, S positions or slots, K and V head
widths.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import jax.numpy as jnp
from jax import Array, lax

from model import TransformerConfig
from model.platform import current_platform

Product = Callable[[Array, Array], Array]  # [R,H,Q,I], [R,H,I,O] -> float32 [R,H,Q,O]


def matmul(x: Array, y: Array) -> Array:
    """The usual `Product`."""
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)


class Block(Protocol):
    """Keys and values of one layer, a pytree, in some layout."""

    @classmethod
    def extend(cls, blocks: Any, block: Any) -> Any:
        """Add a block to those of a cache, as one more or in one longer block."""

    @classmethod
    def empty(cls, config: TransformerConfig, rows: int, size: int, dtype: Any) -> Any:
        """Create a block of zeros for `size` slots."""

    @classmethod
    def from_heads(cls, k: Array, v: Array) -> Any:
        """Create a block from k [R,S,H,K] and v [R,S,H,V]."""

    @classmethod
    def concatenate(cls, blocks: Sequence[Any]) -> Any:
        """Concatenate blocks along their slots."""

    @property
    def size(self) -> int:
        """The number of slots."""

    def num_heads(self, width: int) -> int:
        """The number of key heads of this width."""

    def write(self, entry: Any, start: Array) -> Any:
        """Write an entry's slots at `start`."""

    def scores(self, q: Array, product: Product) -> Array:
        """q [R,H,Q,K] -> q k^T, float32 [R,H,Q,S]."""

    def mix(self, weights: Array, product: Product) -> Array:
        """Weights [R,H,Q,S] -> weighted sums of the values, float32 [R,H,Q,V]."""


Blocks = tuple[Block, ...]


class KVBlock(NamedTuple):
    """Keys [R,H,K,S] and values [R,H,S,V]: each head's matrices, as its products read them."""

    k: Array
    v: Array

    @classmethod
    def extend(cls, blocks: tuple[Self, ...], block: Self) -> tuple[Self, ...]:
        return (*blocks, block)  # old entries are not copied

    @classmethod
    def empty(cls, config: TransformerConfig, rows: int, size: int, dtype: Any) -> Self:
        heads = rows, config.kv_heads
        return cls(
            jnp.zeros((*heads, config.key_width, size), dtype),
            jnp.zeros((*heads, size, config.value_width), dtype),
        )

    @classmethod
    def from_heads(cls, k: Array, v: Array) -> Self:
        return cls(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3))

    @classmethod
    def concatenate(cls, blocks: Sequence[Self]) -> Self:
        keys, values = zip(*blocks, strict=True)
        return cls(jnp.concatenate(keys, axis=3), jnp.concatenate(values, axis=2))

    @property
    def size(self) -> int:
        return self.v.shape[2]

    def num_heads(self, width: int) -> int:
        return self.k.shape[1]

    def write(self, entry: Self, start: Array) -> Self:
        return type(self)(_write(self.k, entry.k, start, 3), _write(self.v, entry.v, start, 2))

    def scores(self, q: Array, product: Product) -> Array:
        return product(q.astype(self.k.dtype), self.k)

    def mix(self, weights: Array, product: Product) -> Array:
        return product(weights.astype(self.v.dtype), self.v)


class FlatKVBlock(NamedTuple):
    """Keys [R,S,H*K] and values [R,S,H*V]: a slot's heads side by side, for matrix units.

    A TPU pads the last two axes of an array to tiles of some 8 x 128, and multiplies 128 x 128
    matrices: a few queries of one head use little of either. Here all heads of a row are one
    product: a query has zeros at the other heads' places, so the sum over all places is its own
    head's. The matrix units do H times the operations, and wait for the memory all the same.
    """

    k: Array
    v: Array

    @classmethod
    def extend(cls, blocks: tuple[Self, ...], block: Self) -> tuple[Self, ...]:
        return (cls.concatenate((*blocks, block)),)  # one product instead of one per block

    @classmethod
    def empty(cls, config: TransformerConfig, rows: int, size: int, dtype: Any) -> Self:
        widths = config.key_width, config.value_width
        return cls(*(jnp.zeros((rows, size, config.kv_heads * width), dtype) for width in widths))

    @classmethod
    def from_heads(cls, k: Array, v: Array) -> Self:
        return cls(*(x.reshape(*x.shape[:2], -1) for x in (k, v)))

    @classmethod
    def concatenate(cls, blocks: Sequence[Self]) -> Self:
        return cls(*(jnp.concatenate(arrays, axis=1) for arrays in zip(*blocks, strict=True)))

    @property
    def size(self) -> int:
        return self.k.shape[1]

    def num_heads(self, width: int) -> int:
        return self.k.shape[-1] // width

    def write(self, entry: Self, start: Array) -> Self:
        arrays = zip(self, entry, strict=True)
        return type(self)(*(_write(buffer, x, start, 1) for buffer, x in arrays))

    def scores(self, q: Array, product: Product) -> Array:
        rows, heads, queries, width = q.shape
        side_by_side = q.astype(self.k.dtype).transpose(0, 2, 1, 3).reshape(rows, queries, 1, -1)
        own = jnp.where(_own_places(heads, width), side_by_side, jnp.zeros((), self.k.dtype))
        # Heads are adjacent: a query's heads fill a tile.
        scores = matmul(own.reshape(rows, queries * heads, -1), self.k.transpose(0, 2, 1))
        return scores.reshape(rows, queries, heads, -1).transpose(0, 2, 1, 3)

    def mix(self, weights: Array, product: Product) -> Array:
        rows, heads, queries, size = weights.shape
        flat = weights.astype(self.v.dtype).transpose(0, 2, 1, 3).reshape(rows, -1, size)
        mixed = matmul(flat, self.v).reshape(rows, queries, heads, -1)
        width = mixed.shape[-1] // heads
        own = jnp.where(_own_places(heads, width), mixed, 0.0).sum(2)
        return own.reshape(rows, queries, heads, width).transpose(0, 2, 1, 3)


# What the compilers' estimates and measurements favour: experiments/LOG.md.
BLOCK_KINDS: dict[str, type[Block]] = {
    "cpu": KVBlock,
    "tpu": FlatKVBlock,
    "gpu": KVBlock,
}


def block_kind() -> type[Block]:
    """The layout for the platform that is compiled for."""
    return BLOCK_KINDS[current_platform()]


def cache_dtype(dtype: Any) -> Any:
    """The dtype of a self-attention cache for products of this dtype.

    To update part of a bfloat16 buffer, CPUs convert all of it to float32 and back.
    """
    return jnp.float32 if current_platform() == "cpu" else dtype


def _own_places(heads: int, width: int) -> Array:
    """[1,1,H,H*width] bool: the places of each head's own part."""
    head = jnp.arange(heads, dtype=jnp.int32)
    return (jnp.repeat(head, width)[None] == head[:, None])[None, None]


def _write(buffer: Array, values: Array, start: Array, axis: int) -> Array:
    return lax.dynamic_update_slice_in_dim(buffer, values.astype(buffer.dtype), start, axis=axis)
