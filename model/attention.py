"""Attention (paper 3.2), split in two so that keys and values can be kept.

Axes: B batch, W beam, T query length, S key length, H heads, K head width, D d_model.
`...` stands for the batch axes: B, or B and W.

    self-attention, whole sequence    attend(x, kv(x), mask)
    self-attention, cached            attend(x, past.write(kv(x), index), mask)
    cross-attention                   attend(x, kept, mask)   with kept = kv(memory), made once
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from model.config import TransformerConfig
from model.dropout import Dropout
from model.embedding import rotate
from model.products import float32_einsum
from model.sharding import constrain


class KV(NamedTuple):
    """One layer's projected keys [..., H, S, K] and values [..., H, S, V]; also its cache.

    Positions lie next to the head width, so that the products over a cache read it in order.
    """

    k: Array
    v: Array

    def write(self, new: "KV", index: Array | int) -> "KV":
        """The same buffers with `new` at key positions `index:`."""
        return KV(*(_write(old, part, index) for old, part in zip(self, new, strict=True)))


def _write(buffer: Array, new: Array, index: Array | int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, new.astype(buffer.dtype), index, axis=-2)


def attention_weights(q: Array, k: Array, mask: Array, bias: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(d_k)) in float32: q [...,H,T,K], k [...,H,S,K] -> [...,H,T,S].

    A `bias` [H,T,S] is added to the scores.
    Queries may have G times as many heads as keys; then G query heads in a row share a key head.
    A query that may attend to nothing weighs all keys alike (and its output means nothing).
    """
    heads, kv_heads = q.shape[-3], k.shape[-3]
    grouped = q.reshape(*q.shape[:-3], kv_heads, heads // kv_heads * q.shape[-2], q.shape[-1])
    scores = float32_einsum("...htk,...hsk->...hts", grouped, k)
    scores = scores.reshape(*q.shape[:-1], k.shape[-2]) * q.shape[-1] ** -0.5
    if bias is not None:
        scores += jnp.expand_dims(bias, tuple(range(scores.ndim - bias.ndim)))
    mask = jnp.expand_dims(mask, tuple(range(scores.ndim - mask.ndim)))
    return jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min), axis=-1)


def mix_values(weights: Array, v: Array) -> Array:
    """The values weighed: weights [...,H,T,S], v [...,H,S,V] -> [...,H,T,V], in v's dtype."""
    heads, kv_heads = weights.shape[-3], v.shape[-3]
    queries = weights.shape[-2]
    grouped = weights.reshape(
        *weights.shape[:-3], kv_heads, heads // kv_heads * queries, weights.shape[-1]
    )
    mixed = jnp.einsum("...hts,...hsv->...htv", grouped.astype(v.dtype), v)
    return mixed.reshape(*weights.shape[:-1], v.shape[-1])


class MultiHeadAttention(nn.Module):
    """Concat(head_1 .. head_H) W^O, head_i = attention of the i-th projections (paper 3.2.2)."""

    config: TransformerConfig

    def setup(self):
        c = self.config
        self.query = self._projection("query", c.num_heads, c.key_width, "heads")
        self.key = self._projection("key", c.kv_heads, c.key_width, "kv_heads")
        self.value = self._projection("value", c.kv_heads, c.value_width, "kv_heads")
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=(0, 1), out_axis=2
        )
        self.out = self.param(
            "out",
            nn.with_logical_partitioning(init, ("heads", "head_dim", "embed")),
            (c.num_heads, c.value_width, c.d_model),
        )
        if c.attention_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
            self.out_bias = self.param("out_bias", zeros, (c.d_model,))
        self.drop = Dropout(c.attention_dropout, c.dropout_bits)

    def _projection(self, name: str, heads: int, width: int, axis: str) -> tuple[Array, ...]:
        """The kernel [D, H, K], Xavier as one [D, H*K] matrix, and the bias [H, K] if any."""
        c = self.config
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 2)
        )
        kernel = nn.with_logical_partitioning(init, ("embed", axis, "head_dim"))
        weights = (self.param(name, kernel, (c.d_model, heads, width)),)
        if c.attention_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, (axis, "head_dim"))
            weights += (self.param(f"{name}_bias", zeros, (heads, width)),)
        return weights

    def _project(self, x: Array, weights: tuple[Array, ...], axis: str) -> Array:
        kernel, *bias = (w.astype(self.config.dtype) for w in weights)
        y = jnp.einsum("...td,dhk->...htk", x, kernel)
        if bias:
            y += jnp.expand_dims(bias[0][:, None], tuple(range(y.ndim - 3)))
        return constrain(y, "batch", axis, "length", "head_dim")

    def kv(self, x: Array, positions: Array | None = None) -> KV:
        """Project what is attended to: x [...,S,D] -> KV; rotated where positions [S] are given."""
        k = self._project(x, self.key, "kv_heads")
        if positions is not None:
            k = rotate(k, positions)
        return KV(k, self._project(x, self.value, "kv_heads"))

    def attend(
        self,
        x: Array,
        kv: KV,
        mask: Array,
        positions: Array | None = None,
        bias: Array | None = None,
        *,
        train: bool = False,
    ) -> Array:
        """Project queries, mix the values, project out: x [...,T,D] -> [...,T,D].

        A `bias` [H,T,S] is added to the scores.

        Where x has more batch axes than the keys (beams of one sentence), these fold into the
        queries: all beams read the same keys, so keys have no beam axis. The mask must then be
        the same for all queries.
        """
        shape, batch = x.shape, kv.k.ndim - 3
        x = x.reshape(*shape[:batch], -1, shape[-1])
        q = self._project(x, self.query, "heads")
        if positions is not None:
            q = rotate(q, positions)
        weights = attention_weights(q, kv.k, mask, bias)
        self.sow("intermediates", "weights", weights)
        mixed = mix_values(self.drop(weights, train=train), kv.v)
        y = jnp.einsum("...htv,hvd->...td", mixed, self.out.astype(self.config.dtype))
        if self.config.attention_bias:
            bias = self.out_bias.astype(y.dtype)
            y += jnp.expand_dims(bias, tuple(range(y.ndim - 1)))
        return constrain(y, "batch", "length", None).reshape(shape)
