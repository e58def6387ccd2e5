"""The model's forward pass over `Weights`: encode, cross-attention keys, one cached step.

Layers are those of model/layer.py, as in training; the layout and dtype differ: sums and residuals
in float32, products in the weights' dtype, keys and values as the products read them
(decode/kv_block.py). Tests compare this with the Flax model for every option.
Axes: B batch, W beam, Z beams of a row of the cache, S source, D, H heads, K, V (head widths).
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data.batch import PAD
from decode import kv_cache
from decode.kv_block import Blocks, block_kind, cache_dtype
from decode.kv_cache import BeamKVCache
from decode.memory import BeamMemory, EncoderMemory, attention, small_query_product
from decode.search_batch import SearchBatch
from decode.sharded_weights import all_gather, sharded_lookup
from decode.weights import Norm, Weights, pack
from model import TransformerConfig
from model.layer import Layer, feed_forward, layer, self_attention
from model.norm import normalize
from model.positions import add_positions, rotate_qk
from model.relative_position_bias import relative_bias
from model.residual import RESIDUALS


class EncoderDecoder(NamedTuple):
    """The encoder-decoder as a model family for search (decode/family.py)."""

    config: TransformerConfig

    @property
    def cache_grows(self) -> bool:
        """Whether the cache grows with the output; a recurrent state has a fixed size."""
        return self.config.recurrence is None

    def pack(self, params: Any, precision: str) -> Weights:
        """Pack the parameters of `Transformer(config)` as weights of that precision."""
        return pack(self.config, params, precision)

    def start(self, weights: Weights, request: SearchBatch) -> tuple[Blocks, Array]:
        """Encode the source: keys and values, one block per decoder layer, and its mask [B,S]."""
        mask = request.src != PAD
        memory = encode(self.config, weights, request.src, mask)
        return cross_kv(self.config, weights, memory), mask

    def init_cache(self, rows: int) -> BeamKVCache:
        """Create the cache of one beam per row, with capacity for no tokens."""
        return kv_cache.init_beam_cache(self.config, rows, 1)

    def extend(self, weights: Weights, cache: BeamKVCache, length: int, slots: int) -> BeamKVCache:
        """Extend the cache to `length` tokens of `slots` beams per row."""
        dtype = cache_dtype(weights.product_dtype)
        return kv_cache.extend(cache, self.config, length, slots, dtype)

    def step(self, weights: Weights, context, tokens: Array, cache: BeamKVCache, index: Array):
        """Decode the next token of each beam to hidden states; see `step` below."""
        cross, mask = context
        return step(self.config, weights, tokens, cross, mask, cache, index)

    def logits(self, weights: Weights, hidden: Array) -> tuple[Array, Array]:
        """Logits, and separately those of the special ids.

        The special logits have a separate product, so that the others can be changed in place: a
        copy of them costs 2% of a step.
        """
        (logits, special), hidden = all_gather((weights.logits, weights.special_logits), hidden)
        with jax.named_scope("logits"):
            return logits(hidden), special(hidden)


def encode(c: TransformerConfig, weights: Weights, src: Array, mask: Array) -> Array:
    """Encoder: src [B,S] ids, mask [B,S] (True: a token) -> memory float32 [B,S,D]."""
    positions = jnp.arange(src.shape[1], dtype=jnp.int32)
    x = embed(c, weights, "source", src, positions)
    table, x = all_gather(weights.tree.get("encoder_bias"), x)
    bias = None
    if table is not None:
        table = table["table"]
        bias = [
            relative_bias(table, positions, positions, c.relative_max_distance, bidirectional=True)
        ]
    for w in weights.stack("encoder"):
        w, x = all_gather(w, x)
        parts = layer_parts(c, w, partial(qkv_of, c, w["attention"], positions=positions))
        x, _ = layer(parts, x, EncoderMemory([mask[:, None]], bias))
    return final_norm(c, weights, "encoder", x)


def cross_kv(c: TransformerConfig, weights: Weights, memory: Array) -> Blocks:
    """Cross-attention cache: memory [B,S,D] -> keys [B,H,K,S], values [B,H,S,V] of each layer."""
    blocks = []
    for w in weights.stack("decoder"):
        linear, memory = all_gather(w["cross_attention"]["kv"], memory)
        with jax.named_scope("projections"):
            k, v = _split(c, linear(memory), queries=False)
            k, v = (x.astype(linear.weight.dtype) for x in (k, v))
            blocks.append(block_kind().from_heads(k, v))
    return tuple(blocks)


def step(
    c: TransformerConfig,
    weights: Weights,
    tokens: Array,
    cross: Blocks,
    mask: Array,
    cache: BeamKVCache,
    index: Array,
) -> tuple[Array, BeamKVCache, Array]:
    """Cached decoder step for the next token of each beam.

    tokens [B,W], mask [B,S], index: the number of previous tokens -> hidden states float32 [B,W,D],
    the input of `weights.logits`; the cache with this token; and the cross-attention weights
    [B,W,S], the mean over layers and heads.
    """
    position = jnp.reshape(index, (1,))
    y = embed(c, weights, "target", tokens, position)
    cache, masks, write_offset = kv_cache.advance(cache, index)
    rows = cache.ancestry.shape[:2]
    product = small_query_product(weights, c.num_heads // c.kv_heads * tokens.shape[1])
    table, y = all_gather(weights.tree.get("decoder_bias"), y)
    biases = None if table is None else _biases(c, table["table"], position, cache, masks)
    layers, attention_mass = [], []
    for w, source, layer_cache in zip(weights.stack("decoder"), cross, cache.layers, strict=True):
        w, y = all_gather(w, y)

        def attend_cross(y, w=w["cross_attention"], source=source):
            with jax.named_scope("projections"):
                q = w["query"](y).reshape(*y.shape[:2], c.num_heads, c.key_width)
            mixed, weights = attention(q, [source], [mask[:, None]], product)
            attention_mass.append(weights[0].mean(1))
            with jax.named_scope("projections"):
                return w["out"](mixed)

        if isinstance(layer_cache, tuple):
            qkv = partial(qkv_of, c, w["self_attention"], positions=position)
            parts = layer_parts(c, w, qkv, rows, attend_cross)
            y, new_cache = layer(
                parts, y, BeamMemory(layer_cache, masks, write_offset, product, biases)
            )
        else:
            y, new_cache = layer(layer_parts(c, w, None, rows, attend_cross), y, layer_cache)
        layers.append(new_cache)
    y = final_norm(c, weights, "decoder", y)
    cache = cache._replace(layers=tuple(layers))
    return y, cache, reduce(add, attention_mass) / len(attention_mass)


def layer_parts(c: TransformerConfig, w, qkv, rows=None, cross=None) -> Layer:
    """Build model/layer.py's `Layer` from a layer's weights.

    `rows` [R,Z] is the shape of a cache, which may group beams differently from x [B,W,D].
    """
    fold = lambda x: x if rows is None else x.reshape(*rows, -1)  # noqa: E731

    def recur(x, cell):
        kind = c.recurrence
        assert kind is not None
        projected = w[c.decoder_mixer]["projections"](fold(x))[..., None, :]  # one position
        y, cells = kind.function(*jnp.split(projected, len(kind.projections), axis=-1), cell)
        return y.reshape(x.shape), cells[..., 0, :]

    def attend(x, memory):
        out = w["attention" if cross is None else "self_attention"]["out"]
        y, memory = self_attention(qkv, out, fold(x), memory)
        return y.reshape(x.shape), memory

    def residual(name):
        norm = partial(_norm, c, w[f"{name}_residual"]["norm"])
        return partial(RESIDUALS[c.norm].connect, norm, _no_dropout)

    ff = w["feed_forward"]
    return Layer(
        mix=attend if qkv else recur,
        feed_forward=partial(
            feed_forward, c.activation, ff["hidden"], ff.get("gate"), ff["out"], _no_dropout
        ),
        mix_residual=residual("attention" if cross is None else "self"),
        feed_forward_residual=residual("feed_forward"),
        cross=cross,
        cross_residual=None if cross is None else residual("cross"),
    )


def _no_dropout(x: Array) -> Array:
    return x


def _norm(c: TransformerConfig, w: Norm, x: Array) -> Array:
    with jax.named_scope("norm"):
        return normalize(c.norm_kind, x, w.scale, w.bias, c.norm_epsilon)


def final_norm(c: TransformerConfig, weights: Weights, side: str, x: Array) -> Array:
    """Final norm of a stack, x [B,T,D], if the residual order (pre-norm) has one."""
    if not RESIDUALS[c.norm].final_norm:
        return x
    norm, x = all_gather(weights.tree[f"{side}_norm"], x)
    return _norm(c, norm, x)


def embed(c: TransformerConfig, weights: Weights, side: str, ids: Array, positions: Array):
    """Embed ids [B,T] at positions [T] -> float32 [B,T,D]."""
    with jax.named_scope("embedding"):
        x = sharded_lookup(weights.embedding(side), ids)
        table, x = all_gather(weights.tree.get(f"{side}_positions"), x)
        x = add_positions(c, x, positions, table and table["table"])
    if not c.embedding_norm:
        return x
    norm, x = all_gather(weights.tree[f"{side}_embedding_norm"], x)
    return _norm(c, norm, x)


def qkv_of(c: TransformerConfig, w, x: Array, positions: Array) -> tuple[Array, Array, Array]:
    """x [B,T,D] -> queries, keys and values [B,T,heads,width], with rotary positions if any."""
    q, k, v = _split(c, w["qkv"](x))
    q, k = (rotate_qk(c, x.swapaxes(1, 2), positions).swapaxes(1, 2) for x in (q, k))
    return q, k, v


def _split(c: TransformerConfig, x: Array, queries: bool = True) -> list[Array]:
    """[B,T,all widths] -> (queries,) keys and values, [B,T,heads,width] each."""
    outputs, start = [], 0
    shapes = [(c.num_heads, c.key_width)] * queries
    for heads, width in [*shapes, (c.kv_heads, c.key_width), (c.kv_heads, c.value_width)]:
        outputs.append(x[..., start : start + heads * width].reshape(*x.shape[:2], heads, width))
        start += heads * width
    return outputs


def _biases(
    c: TransformerConfig, table: Array, position: Array, cache: BeamKVCache, masks: Sequence[Array]
) -> list[Array]:
    """Relative biases from a table [R,H] for queries at one position, per block: [H,1,N*Z]."""
    sizes, length = [mask.shape[-1] for mask in masks], cache.ancestry.shape[2]
    positions = jnp.arange(length, dtype=jnp.int32)
    bias = relative_bias(table, position, positions, c.relative_max_distance, bidirectional=False)
    bias = jnp.repeat(bias, sum(sizes) // length, axis=2)  # equal for a position's slots
    return jnp.split(bias, np.cumsum(sizes)[:-1], axis=2)
