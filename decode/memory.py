"""Attention in decoding, and the `Memory` of encoder and cached decoder.

Axes: B batch, Q queries, H heads, K and V head widths, S keys, R rows of a cache, Z beams of a row.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from decode import kv_cache
from decode.kv_block import Block, Blocks, KVBlock, Product, matmul
from decode.weights import Int8, Weights
from model.platform import current_platform


def attention(
    q: Array,
    blocks: Sequence[Block],
    masks: Sequence[Array],
    product: Product = matmul,
    biases: Sequence[Array] | None = None,
) -> tuple[Array, list[Array]]:
    """Attend from q [B,Q,H,K] to blocks, masks [B,Q or 1,S] -> [B,Q,H*V], weights [B,H,Q,S].

    One softmax over all blocks, whose keys need not be contiguous. G consecutive query heads share
    a key head, as in model/attention.py. `biases` [H,Q or 1,S] are added to the scores.
    """
    with jax.named_scope("attention_core"):
        return _attention(q, blocks, masks, product, biases)


def _attention(q, blocks, masks, product, biases):
    batch, queries, heads, width = q.shape
    kv_heads = blocks[0].num_heads(width)
    shape = (batch, kv_heads, heads // kv_heads, queries)
    q = (q * width**-0.5).reshape(batch, queries, *shape[1:3], width).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, kv_heads, -1, width)  # queries of a key head are adjacent
    scores = []
    added = biases or (None,) * len(blocks)
    for block, mask, bias in zip(blocks, masks, added, strict=True):
        mask, logits = mask[:, None, None], block.scores(q, product).reshape(*shape, -1)
        if bias is not None:
            logits += bias.reshape(1, *shape[1:3], *bias.shape[1:])
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
        scores.append(logits)
    highest = jnp.stack([block.max(-1) for block in scores]).max(0)[..., None]
    exps = [jnp.exp(block - highest) for block in scores]
    total = reduce(add, [block.sum(-1) for block in exps])[..., None]
    rows = (exp.reshape(batch, kv_heads, -1, exp.shape[-1]) for exp in exps)
    partial_sums = [block.mix(x, product) for x, block in zip(rows, blocks, strict=True)]
    mixed = reduce(add, partial_sums).reshape(*shape, -1) / total
    mixed = mixed.transpose(0, 3, 1, 2, 4).reshape(batch, queries, -1)
    return mixed, [(block / total).reshape(batch, heads, queries, -1) for block in exps]


def _fused_sum(x: Array, y: Array) -> Array:
    """x [B,H,Q,I] times y [B,H,I,O] as one fused sum, which barriers isolate."""
    x, y = jax.lax.optimization_barrier((x, y))
    return jax.lax.optimization_barrier(jnp.sum(x[..., None] * y[:, :, None], axis=-2))


def small_query_product(weights: Weights, count: int) -> Product:
    """The matrix product for `count` queries per head: on CPUs, many tiny products are slow.

    With float32 weights a fused sum takes half the time there. With other weights it gains nothing
    (decode/xla_options.py has other options then), and a single query is a different product.
    """
    weight = weights.logits.weight
    is_float32 = not isinstance(weight, Int8) and weight.dtype == "float32"
    fused = is_float32 and 1 < count <= 8 and current_platform() == "cpu"
    return _fused_sum if fused else matmul


class EncoderMemory(NamedTuple):
    """The encoder's `Memory`: the positions of one call."""

    masks: Sequence[Array]
    biases: Sequence[Array] | None

    def attend(self, q: Array, k: Array, v: Array) -> tuple[Array, None]:
        """q, k, v [B,S,heads,width] -> [B,S,H*V]."""
        return attention(q, [KVBlock.from_heads(k, v)], self.masks, biases=self.biases)[0], None


class BeamMemory(NamedTuple):
    """The decoder's `Memory` in beam search: a layer's cache blocks, with a mask per beam."""

    blocks: Blocks
    masks: Sequence[Array]
    write_offset: Array
    product: Product
    biases: Sequence[Array] | None

    def attend(self, q: Array, k: Array, v: Array) -> tuple[Array, Blocks]:
        """q, k, v [R,Z,heads,width] -> [R,Z,H*V], and the blocks with k and v."""
        blocks = kv_cache.write(self.blocks, k, v, self.write_offset)
        return attention(q, blocks, self.masks, self.product, self.biases)[0], blocks
