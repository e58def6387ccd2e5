"""Encoder and decoder layers: attention, feed-forward, residuals and norms (paper 3.1, 3.3).

A layer's methods are bodies of a scan, (carried, ...) -> (carried, output), so that the same code
serves N unrolled layers and one layer scanned over stacked parameters.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from model.activations import ACTIVATIONS
from model.attention import KV, MultiHeadAttention
from model.config import TransformerConfig
from model.dropout import Dropout
from model.recurrence import SSRU, Cell
from model.sharding import constrain


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the last axis."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x [...,D] -> [...,D]; statistics in float32, the result in x's dtype."""
        c = self.config
        scale = self._vector("scale", nn.initializers.ones)
        bias = self._vector("bias", nn.initializers.zeros) if c.norm_kind == "layer" else None
        return normalised(x.astype(jnp.float32), scale, bias, c.norm_epsilon).astype(x.dtype)

    def _vector(self, name: str, init) -> Array:
        init = nn.with_logical_partitioning(init, ("embed",))
        return self.param(name, init, (self.config.d_model,))


def normalised(x: Array, scale: Array, bias: Array | None, epsilon: float) -> Array:
    """x [...,D] by LayerNorm, or by RMSNorm where there is no bias; scale and bias [D]."""
    scale, bias = (
        None if vector is None else jnp.expand_dims(vector, tuple(range(x.ndim - 1)))
        for vector in (scale, bias)
    )
    if bias is not None:
        x -= x.mean(-1, keepdims=True)
    x *= jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon)
    x *= scale
    return x if bias is None else x + bias


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2, at each position alike (paper 3.3).

    Gated kinds (Shazeer 2020) multiply the activation by a second projection of x.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        c = self.config
        activation = ACTIVATIONS[c.activation]
        hidden = activation.function(self._dense("hidden", c.d_ff)(x))
        if activation.gated:
            hidden *= self._dense("gate", c.d_ff)(x)
        hidden = constrain(hidden, "batch", "length", "mlp")
        hidden = Dropout(c.ff_dropout, c.dropout_bits)(hidden, train=train)
        return constrain(self._dense("out", c.d_model)(hidden), "batch", "length", None)

    def _dense(self, name: str, width: int) -> nn.Dense:
        axes = ("mlp", "embed") if name == "out" else ("embed", "mlp")
        return nn.Dense(
            width,
            use_bias=self.config.ff_bias,
            dtype=self.config.dtype,
            kernel_init=nn.with_logical_partitioning(nn.initializers.xavier_uniform(), axes),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
            dot_general=_narrowing if name == "out" and self.config.transposed_product else None,
            name=name,
        )


def _narrowing(x: Array, kernel: Array, _dimensions, **options) -> Array:
    """x [...,F] times kernel [F,D], by the kernel transposed.

    The kernel's gradient is then made as [D,F]. As [F,D], the wider side first, a CPU takes half as
    long again; without the barrier the compiler would make it so.
    """
    turned = jax.lax.optimization_barrier(kernel.T)
    dimensions = ((x.ndim - 1,), (1,)), ((), ())
    return jax.lax.dot_general(x, turned, dimensions, **options)


class Residual(nn.Module):
    """A sub-layer's frame: LayerNorm(x + Dropout(f(x))), or x + Dropout(f(LayerNorm(x)))."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array, sublayer: Callable[[Array], Array], *, train: bool) -> Array:
        norm = Norm(self.config, name="norm")
        drop = Dropout(self.config.dropout, self.config.dropout_bits)
        if self.config.norm == "post":
            return norm(x + drop(sublayer(x), train=train))
        return x + drop(sublayer(norm(x)), train=train)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    config: TransformerConfig

    def setup(self):
        c = self.config
        self.attention, self.feed_forward = MultiHeadAttention(c), FeedForward(c)
        self.attention_frame, self.feed_forward_frame = Residual(c), Residual(c)

    def __call__(
        self, x: Array, mask: Array, positions: Array | None, bias: Array | None, train: bool
    ) -> tuple[Array, None]:
        """x [B,S,D] -> [B,S,D]; `positions` [S] only where attention rotates.

        `bias` [H,S,S] only where it has one.
        """

        def attend(x):
            kv = self.attention.kv(x, positions)
            return self.attention.attend(x, kv, mask, positions, bias, train=train)

        x = self.attention_frame(x, attend, train=train)
        x = self.feed_forward_frame(x, lambda x: self.feed_forward(x, train=train), train=train)
        return x, None


class DecoderLayer(nn.Module):
    """Causal self-attention or a recurrence, attention to the encoder's output, feed-forward."""

    config: TransformerConfig

    def setup(self):
        c = self.config
        if c.decoder_mixer == "ssru":
            self.ssru = SSRU(c)
        else:
            self.self_attention = MultiHeadAttention(c)
        self.cross_attention = MultiHeadAttention(c)
        self.feed_forward = FeedForward(c)
        self.self_frame, self.cross_frame, self.feed_forward_frame = (Residual(c) for _ in "123")

    def cross_kv(self, memory: Array) -> tuple[Array, KV]:
        """Keys and values of the encoder's output, computed once a source: [B,S,D] -> KV."""
        return memory, self.cross_attention.kv(memory)

    def __call__(
        self,
        y: Array,
        cross: KV,
        past: KV | Cell | None,
        index: Array | int,
        masks: tuple[Array | None, Array],
        positions: Array | None,
        bias: Array | None,
        train: bool,
    ) -> tuple[Array, KV | Cell | None]:
        """y [...,T,D] -> [...,T,D], and the cache with y's own part in it (None if none).

        `masks` are the causal one [1,T,S or L] and the source padding's; training, prefill and a
        cached step differ in T and in whether there is a `past`, in nothing else. Of a recurrence
        the first tells which positions begin a sentence [B,T], or None: only the first does.
        `positions` and `bias` [H,T,S or L] are those of self-attention.
        """
        causal, padding = masks
        cache = None

        def recur(y):
            nonlocal cache
            y, cell = self.ssru(y, past, causal)
            cache = None if past is None else cell
            return y

        def attend(y):
            nonlocal cache
            kv = self.self_attention.kv(y, positions)
            if past is not None:
                kv = cache = past.write(kv, index)
            return self.self_attention.attend(y, kv, causal, positions, bias, train=train)

        mix = recur if self.config.decoder_mixer == "ssru" else attend
        y = self.self_frame(y, mix, train=train)
        y = self.cross_frame(
            y, lambda y: self.cross_attention.attend(y, cross, padding, train=train), train=train
        )
        y = self.feed_forward_frame(y, lambda y: self.feed_forward(y, train=train), train=train)
        return y, cache
