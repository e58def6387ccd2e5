"""Attention (paper 3.2) in two parts, so that keys and values can be cached.

Axes: B batch, W beam, T query length, S key length, H heads, K head width, D d_model.
`...` stands for the batch axes: B, or B and W.

    self-attention, all positions    AllPositions(..).attend(*qkv(x, positions))
    self-attention, cached           Cached(.., cache, index).attend(*qkv(x, positions))
    cross-attention                  attend(x, kv, mask)   with kv = kv(memory), computed once
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from model.adapter import add_adapter
from model.attention_kernels import choose_kernel, fused_attention
from model.config import TransformerConfig
from model.dropout import Dropout
from model.einsum import einsum, float32_einsum
from model.masks import Mask
from model.partitioned import partitioned
from model.platform import current_platform
from model.positions import rotate_qk
from model.sharding import constrain


class KV(NamedTuple):
    """One layer's projected keys [..., H, S, K] and values [..., H, S, V]; also its cache.

    Positions are adjacent to the head width, so that products over a cache read it in order.
    """

    k: Array
    v: Array

    def write(self, kv: "KV", index: Array | int) -> "KV":
        """The same buffers with `kv` at key positions `index:`."""
        return KV(*(_write(buffer, x, index) for buffer, x in zip(self, kv, strict=True)))


def _write(buffer: Array, values: Array, index: Array | int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, values.astype(buffer.dtype), index, axis=-2)


def attention_weights(q: Array, k: Array, mask: Array, bias: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(d_k)) in float32: q [...,H,T,K], k [...,H,S,K] -> [...,H,T,S].

    A `bias` [H,T,S] is added to the scores.
    Queries may have G times as many heads as keys: then G adjacent query heads share a key head.
    A query with all keys masked has equal weights for all keys (and its output is meaningless).
    """
    heads, kv_heads = q.shape[-3], k.shape[-3]
    grouped = q.reshape(*q.shape[:-3], kv_heads, heads // kv_heads * q.shape[-2], q.shape[-1])
    scores = float32_einsum("...htk,...hsk->...hts", grouped, k)
    scores = scores.reshape(*q.shape[:-1], k.shape[-2]) * q.shape[-1] ** -0.5
    if bias is not None:
        scores += jnp.expand_dims(bias, tuple(range(scores.ndim - bias.ndim)))
    mask = jnp.expand_dims(mask, tuple(range(scores.ndim - mask.ndim)))
    return jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min), axis=-1)


def weighted_values(weights: Array, v: Array) -> Array:
    """Weighted sum of values: weights [...,H,T,S], v [...,H,S,V] -> [...,H,T,V], in v's dtype."""
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
        self.query = self._weights("query", c.num_heads, c.key_width, "heads")
        self.key = self._weights("key", c.kv_heads, c.key_width, "kv_heads")
        self.value = self._weights("value", c.kv_heads, c.value_width, "kv_heads")
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=(0, 1), out_axis=2
        )
        self.out = self.param(
            "out",
            partitioned(init, ("heads", "head_dim", "embed")),
            (c.num_heads, c.value_width, c.d_model),
        )
        if c.attention_bias:
            zeros = partitioned(nn.initializers.zeros, ("embed",))
            self.out_bias = self.param("out_bias", zeros, (c.d_model,))
        self.drop = Dropout(c.attention_dropout, c.dropout_bits)

    def _weights(self, name: str, heads: int, width: int, axis: str) -> tuple[Array, ...]:
        """Kernel [D, H, K], Xavier-initialized as one [D, H*K] matrix, and bias [H, K] if any."""
        c = self.config
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 2)
        )
        kernel = partitioned(init, ("embed", axis, "head_dim"))
        weight = self.param(name, kernel, (c.d_model, heads, width))
        if not c.attention_bias:
            return (weight,)
        zeros = partitioned(nn.initializers.zeros, (axis, "head_dim"))
        return weight, self.param(f"{name}_bias", zeros, (heads, width))

    def _project(self, x: Array, name: str) -> Array:
        """Project x [...,T,D] by "query", "key" or "value" weights -> [...,heads,T,width]."""
        kernel, *bias = (w.astype(self.config.dtype) for w in getattr(self, name))
        if self._heads_side_by_side():
            y = einsum("...td,dn->...tn", x, kernel.reshape(len(kernel), -1))
            y = jax.lax.optimization_barrier(y)
            y = y.reshape(*y.shape[:-1], *kernel.shape[1:]).swapaxes(-2, -3)
        else:
            y = einsum("...td,dhk->...htk", x, kernel)
        y = add_adapter(self, name, y, x, "...td,dr->...tr", "...tr,rhk->...htk")
        if bias:
            y += jnp.expand_dims(bias[0][:, None], tuple(range(y.ndim - 3)))
        axis = "heads" if name == "query" else "kv_heads"
        return constrain(y, "batch", axis, "length", "head_dim")

    def kv(self, x: Array) -> KV:
        """Project x [...,S,D] to keys and values, without positions -> KV."""
        return KV(self._project(x, "key"), self._project(x, "value"))

    def qkv(self, x: Array, positions: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values of x [...,T,D] at positions [T] or [B,T], for self-attention."""
        k, v = self.kv(x)
        q = self._project(x, "query")
        return rotate_qk(self.config, q, positions), rotate_qk(self.config, k, positions), v

    def dot_product_attention(
        self, q: Array, kv: KV, mask: Mask, bias: Array | None = None, *, train: bool = False
    ) -> Array:
        """Softmax-weighted values: q [...,H,T,K] -> [...,H,T,V].

        A `bias` [H,T,S] is added to the scores. A fused kernel (`model.attention_kernel`) is used
        where it supports the call.
        """
        kernel, _ = choose_kernel(self.config, current_platform())
        if kernel != "plain" and not self._needs_weights(bias, train):
            mixed = fused_attention(kernel, q, *kv, mask)
            if mixed is not None:
                return mixed
        weights = attention_weights(q, kv.k, mask.dense, bias)
        self.sow("intermediates", "weights", weights)
        return weighted_values(self.drop(weights, train=train), kv.v)

    def _heads_side_by_side(self) -> bool:
        """Whether to project to [T,H*K], the form of model/short_attention.py.

        With separate axes, a TPU's compiler would choose a layout that has to be copied.
        """
        return choose_kernel(self.config, current_platform())[0] == "short"

    def _needs_weights(self, bias: Array | None, train: bool) -> bool:
        """Whether the scores or weights are changed or returned, which fused kernels cannot."""
        if bias is not None or (train and self.config.attention_dropout > 0):
            return True
        return self.is_mutable_collection("intermediates")

    def project_out(self, mixed: Array) -> Array:
        """Output projection of all heads: [...,H,T,V] -> [...,T,D]."""
        kernel = self.out.astype(self.config.dtype)
        if self._heads_side_by_side():
            flat = mixed.swapaxes(-2, -3)
            flat = jax.lax.optimization_barrier(flat.reshape(*flat.shape[:-2], -1))
            y = einsum("...tn,nd->...td", flat, kernel.reshape(-1, kernel.shape[-1]))
        else:
            y = einsum("...htv,hvd->...td", mixed, kernel)
        y = add_adapter(self, "out", y, mixed, "...htv,hvr->...tr", "...tr,rd->...td")
        if self.config.attention_bias:
            bias = self.out_bias.astype(y.dtype)
            y += jnp.expand_dims(bias, tuple(range(y.ndim - 1)))
        return constrain(y, "batch", "length", None)

    def attend(self, x: Array, kv: KV, mask: Mask, *, train: bool = False) -> Array:
        """Cross-attention of x [...,T,D] to `kv`, without positions -> [...,T,D].

        If x has more batch axes than the keys (beams of one sentence), these are folded into the
        query axis: all beams share the same keys, so keys have no beam axis. The mask must then be
        the same for all queries.
        """
        shape, batch = x.shape, kv.k.ndim - 3
        x = x.reshape(*shape[:batch], -1, shape[-1])
        q = self._project(x, "query")
        return self.project_out(self.dot_product_attention(q, kv, mask, train=train)).reshape(shape)


class AllPositions(NamedTuple):
    """A `Memory` of only the current call's positions, for training and for the encoder."""

    attention: MultiHeadAttention
    mask: Mask
    bias: Array | None
    train: bool

    def attend(self, q: Array, k: Array, v: Array) -> tuple[Array, None]:
        """q [...,H,T,K], k and v of the same positions -> [...,H,T,V]."""
        return self.attention.dot_product_attention(
            q, KV(k, v), self.mask, self.bias, train=self.train
        ), None


class Cached(NamedTuple):
    """A `Memory` with the keys and values of positions before `index`: prefill and cached steps."""

    attention: MultiHeadAttention
    cache: KV
    index: Array | int  # type: ignore[assignment]  # hides tuple.index
    mask: Mask
    bias: Array | None

    def attend(self, q: Array, k: Array, v: Array) -> tuple[Array, KV]:
        """q, k, v [...,H,T,width] from `index` on -> [...,H,T,V], and the cache with k and v."""
        cache = self.cache.write(KV(k, v), self.index)
        return self.attention.dot_product_attention(q, cache, self.mask, self.bias), cache
