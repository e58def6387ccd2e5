"""The model over decoding's `Weights`: encode, the source's keys and values, one cached step.

The same function as model.Transformer (the tests hold them equal for every switch), written for
speed where nothing is to be trained: sums and residuals in float32, products in the weights' own
type, keys [K,S] and values [S,V] as the products read them. These are float32 in any precision:
CPUs convert a whole bfloat16 buffer to float32 and back to change a part of it.
Axes: B batch, W beam, Z beams of a row of the pool, S source, D, H heads, K, V (head widths).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from decode import pool
from decode.pool import Block, Pool
from decode.split import look_up, whole
from decode.weights import Int8, Layer, Norm, Weights
from model import TransformerConfig
from model.activations import ACTIVATIONS
from model.embedding import encodings, rotate
from model.layers import normalised
from model.relative import relative_bias

Product = Callable[[Array, Array], Array]  # [B,H,Q,I], [B,H,I,O] -> [B,H,Q,O]


def encode(c: TransformerConfig, weights: Weights, src: Array, mask: Array) -> Array:
    """src [B,S] ids, mask [B,S] (True: a token) -> memory float32 [B,S,D]."""
    places = jnp.arange(src.shape[1], dtype=jnp.int32)
    table = weights.target_table if weights.source_table is None else weights.source_table
    x = _placed(c, look_up(table, src), weights.source_positions, places)
    norm, x = whole(weights.source_embedding_norm, x)
    x = x if norm is None else _normed(c, x, norm)
    table, x = whole(weights.encoder_bias, x)
    bias = None
    if table is not None:
        bias = [relative_bias(table, places, places, c.relative_distance, both=True)]
    for layer in weights.encoder:
        layer, x = whole(layer, x)

        def attend(x, layer=layer):
            q, k, v = _split(c, layer.qkv(x))
            q, k = (_turned(c, part, places) for part in (q, k))
            kept = Block(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3))
            return layer.out(attention(q, [kept], [mask[:, None]], biases=bias)[0])

        x = _framed(c, x, layer.norm, attend)
        x = _framed(c, x, layer.feed_forward_norm, lambda x, layer=layer: _forward(c, layer, x))
    norm, x = whole(weights.encoder_norm, x)
    return x if norm is None else _normed(c, x, norm)


def cross_kv(c: TransformerConfig, weights: Weights, memory: Array) -> tuple[Block, ...]:
    """memory [B,S,D] -> each decoder layer's keys [B,H,K,S] and values [B,H,S,V] of it."""
    kept = []
    for layer in weights.decoder:
        linear, memory = whole(layer.cross_kv, memory)
        k, v = _split(c, linear(memory), queries=False)
        k, v = (x.astype(linear.weight.dtype) for x in (k, v))
        kept.append(Block(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)))
    return tuple(kept)


def step(
    c: TransformerConfig,
    weights: Weights,
    tokens: Array,
    cross: Sequence[Block],
    mask: Array,
    past: Pool,
    index: Array,
) -> tuple[Array, Pool, Array]:
    """What the decoder makes of one more token of each beam, given what came before it.

    tokens [B,W], mask [B,S], index: how many tokens came before -> float32 [B,W,D], from which
    `weights.logits` makes logits, the pool with this token, and the cross-attention weights
    [B,W,S], the mean over layers and heads.
    """
    place = jnp.reshape(index, (1,))
    y = _placed(c, look_up(weights.target_table, tokens), weights.target_positions, place)
    norm, y = whole(weights.target_embedding_norm, y)
    y = y if norm is None else _normed(c, y, norm)
    past, masks, at = pool.arrive(past, index)
    rows = past.ancestry.shape[:2]
    product = _few_queries(weights, c.num_heads // c.kv_heads * tokens.shape[1])
    table, y = whole(weights.decoder_bias, y)
    biases = None if table is None else _biases(c, table, place, past, masks)
    layers, received = [], []
    for layer, kept, blocks in zip(weights.decoder, cross, past.layers, strict=True):
        layer, y = whole(layer, y)

        def recur(y, layer=layer, cells=blocks):
            candidate, forget = jnp.split(layer.cell(y.reshape(*rows, -1)), 2, axis=-1)
            gate = jax.nn.sigmoid(forget)
            layers.append(gate * cells + (1.0 - gate) * candidate)
            return jax.nn.relu(layers[-1]).reshape(y.shape)

        def attend_self(y, layer=layer, blocks=blocks):
            q, k, v = _split(c, layer.qkv(y.reshape(*rows, -1)))
            q, k = (_turned(c, part, place) for part in (q, k))
            layers.append(pool.write(blocks, k, v, at))
            return layer.out(attention(q, layers[-1], masks, product, biases)[0]).reshape(y.shape)

        def attend_cross(y, layer=layer, kept=kept):
            q = layer.cross_query(y).reshape(*y.shape[:2], c.num_heads, c.key_width)
            mixed, weights = attention(q, [kept], [mask[:, None]], product)
            received.append(weights[0].mean(1))
            return layer.cross_out(mixed)

        y = _framed(c, y, layer.norm, recur if past.recurrent else attend_self)
        y = _framed(c, y, layer.cross_norm, attend_cross)
        y = _framed(c, y, layer.feed_forward_norm, lambda y, layer=layer: _forward(c, layer, y))
    norm, y = whole(weights.decoder_norm, y)
    if norm is not None:
        y = _normed(c, y, norm)
    past = past._replace(layers=tuple(layers))
    return y, past, sum(received) / len(received)


def _matmul(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)


def attention(
    q: Array,
    blocks: Sequence[Block],
    masks: Sequence[Array],
    product: Product = _matmul,
    biases: Sequence[Array] | None = None,
) -> tuple[Array, list[Array]]:
    """Queries q [B,Q,H,K] over blocks of keys, masks [B,Q or 1,S] -> [B,Q,H*V], weights [B,H,Q,S].

    One softmax over all blocks, whose keys need not lie together. G query heads in a row share a
    key head, as in model/attention.py. What `biases` [H,Q or 1,S] have is added to the scores.
    """
    batch, queries, heads, width = q.shape
    kv_heads = blocks[0].k.shape[1]
    shape = (batch, kv_heads, heads // kv_heads, queries)
    q = (q * width**-0.5).reshape(batch, queries, *shape[1:3], width).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, kv_heads, -1, width)  # a key head's queries side by side
    scores = []
    for (k, _), mask, bias in zip(blocks, masks, biases or [None] * len(blocks), strict=True):
        each = product(q.astype(k.dtype), k)
        mask, each = mask[:, None, None], each.reshape(*shape, -1)
        if bias is not None:
            each += bias.reshape(1, *shape[1:3], *bias.shape[1:])
        each = jnp.where(mask, each, jnp.finfo(jnp.float32).min)
        scores.append(each)
    highest = jnp.stack([each.max(-1) for each in scores]).max(0)[..., None]
    grown = [jnp.exp(each - highest) for each in scores]
    total = sum(each.sum(-1) for each in grown)[..., None]
    mixed = 0.0
    for (_, v), each in zip(blocks, grown, strict=True):
        mixed += product(each.reshape(batch, kv_heads, -1, v.shape[2]).astype(v.dtype), v)
    mixed = mixed.reshape(*shape, -1) / total
    mixed = mixed.transpose(0, 3, 1, 2, 4).reshape(batch, queries, -1)
    return mixed, [(each / total).reshape(batch, heads, queries, -1) for each in grown]


def _sums(x: Array, y: Array) -> Array:
    """x [B,H,Q,I] times y [B,H,I,O] as one fused sum, which the barriers keep apart."""
    x, y = jax.lax.optimization_barrier((x, y))
    return jax.lax.optimization_barrier(jnp.sum(x[..., None] * y[:, :, None], axis=-2))


def _few_queries(weights: Weights, count: int) -> Product:
    """The product for `count` queries a head: many tiny ones, and on CPUs slow ones.

    With float32 weights a fused sum takes half their time there. With others it gains nothing
    (decode/compile.py has other options then), and a single query has a product of its own.
    """
    exact = not isinstance(weights.logits.weight, Int8) and weights.logits.weight.dtype == "float32"
    return _sums if exact and 1 < count <= 8 and jax.default_backend() == "cpu" else _matmul


def _split(c: TransformerConfig, x: Array, queries: bool = True) -> list[Array]:
    """[B,T,all widths] -> (queries,) keys and values, [B,T,heads,width] each."""
    parts, at = [], 0
    wanted = [(c.num_heads, c.key_width)] * queries
    for heads, width in [*wanted, (c.kv_heads, c.key_width), (c.kv_heads, c.value_width)]:
        parts.append(x[..., at : at + heads * width].reshape(*x.shape[:2], heads, width))
        at += heads * width
    return parts


def _turned(c: TransformerConfig, x: Array, places: Array) -> Array:
    """[B,T,H,K], rotated where positions are rotary; a single place is all T's."""
    if c.positions != "rotary":
        return x
    return rotate(x.swapaxes(1, 2), places).swapaxes(1, 2)


def _biases(
    c: TransformerConfig, table: Array, place: Array, past: Pool, masks: Sequence[Array]
) -> list[Array]:
    """What a table [R,H] adds to the scores of each block, of queries at one place: [H,1,N*Z]."""
    sizes, length = [mask.shape[-1] for mask in masks], past.ancestry.shape[2]
    places = jnp.arange(length, dtype=jnp.int32)
    bias = relative_bias(table, place, places, c.relative_distance, both=False)
    bias = jnp.repeat(bias, sum(sizes) // length, axis=2)  # a position's slots are at one place
    return jnp.split(bias, np.cumsum(sizes)[:-1], axis=2)


def _placed(c: TransformerConfig, x: Array, table: Array | None, places: Array) -> Array:
    if c.positions in ("rotary", "relative"):
        return x
    if c.positions == "learned":
        table, x = whole(table, x)
        return x + jnp.take(table, places, axis=0, mode="clip")[None]
    return x + encodings(c, places)[None]


def _framed(c: TransformerConfig, x: Array, norm: Norm, sublayer) -> Array:
    if c.norm == "post":
        return _normed(c, x + sublayer(x), norm)
    return x + sublayer(_normed(c, x, norm))


def _normed(c: TransformerConfig, x: Array, norm: Norm) -> Array:
    return normalised(x, *norm, c.norm_epsilon)


def _forward(c: TransformerConfig, layer: Layer, x: Array) -> Array:
    hidden = ACTIVATIONS[c.activation].function(layer.hidden(x))
    if layer.gate is not None:
        hidden *= layer.gate(x)
    return layer.feed_forward_out(hidden)
