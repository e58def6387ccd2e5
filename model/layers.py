"""Encoder and decoder layers with trained weights (paper 3.1, 3.3).

The computation of a layer is defined in model/layer.py; these modules provide its weights. A
layer's methods are scan bodies, (carry, ...) -> (carry, output), so that the same code serves N
unrolled layers and one layer scanned over stacked parameters.
"""

from functools import partial

import flax.linen as nn
from jax import Array

from model.activations import ACTIVATIONS
from model.attention import KV, AllPositions, Cached, MultiHeadAttention
from model.config import TransformerConfig
from model.dense import Dense
from model.dropout import Dropout
from model.layer import Layer, Memory, feed_forward, layer, self_attention
from model.masks import Mask
from model.norm import Norm
from model.partitioned import partitioned
from model.recurrence import Cell, Recurrent
from model.residual import RESIDUALS, Sublayer
from model.sharding import constrain


class FeedForward(nn.Module):
    """Position-wise feed-forward network: trained weights for `feed_forward` in model/layer.py."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        c = self.config
        drop = Dropout(c.mlp_dropout, c.dropout_bits)
        y = feed_forward(
            c.activation,
            self._dense("hidden", c.d_ff),
            self._dense("gate", c.d_ff) if ACTIVATIONS[c.activation].gated else None,
            self._dense("out", c.d_model),
            lambda units: drop(constrain(units, "batch", "length", "mlp"), train=train),
            x,
        )
        return constrain(y, "batch", "length", None)

    def _dense(self, name: str, width: int) -> Dense:
        c = self.config
        axes = ("mlp", "embed") if name == "out" else ("embed", "mlp")
        return Dense(
            width,
            c.dtype,
            partitioned(nn.initializers.xavier_uniform(), axes),
            partitioned(nn.initializers.zeros, axes[1:]) if c.mlp_bias else None,
            transposed=name == "out" and c.transpose_down_projection,
            name=name,
        )


class Residual(nn.Module):
    """The residual connection around a sub-layer, with its norm and dropout (model/residual.py)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array, sublayer: Sublayer, *, train: bool) -> Array:
        """x [...,D] -> [...,D]."""
        drop = Dropout(self.config.dropout, self.config.dropout_bits)
        connect = RESIDUALS[self.config.norm].connect
        return connect(Norm(self.config, name="norm"), partial(drop, train=train), x, sublayer)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    config: TransformerConfig

    def setup(self):
        c = self.config
        self.attention, self.feed_forward = MultiHeadAttention(c), FeedForward(c)
        self.attention_residual, self.feed_forward_residual = Residual(c), Residual(c)

    def __call__(
        self, x: Array, mask: Mask, positions: Array, bias: Array | None, train: bool
    ) -> tuple[Array, None]:
        """x [B,S,D] at positions [S] or [B,S] -> [B,S,D]; `bias` [H,S,S] is added to scores."""
        qkv = partial(self.attention.qkv, positions=positions)
        parts = Layer(
            mix=partial(self_attention, qkv, self.attention.project_out),
            feed_forward=partial(self.feed_forward, train=train),
            mix_residual=partial(self.attention_residual, train=train),
            feed_forward_residual=partial(self.feed_forward_residual, train=train),
        )
        x, _ = layer(parts, x, AllPositions(self.attention, mask, bias, train))
        return x, None


class DecoderLayer(nn.Module):
    """Causal self-attention or a recurrence, attention to the encoder's output, feed-forward."""

    config: TransformerConfig

    def setup(self):
        c = self.config
        if c.recurrence:
            self.recurrence = Recurrent(c, name=c.decoder_mixer)
        else:
            self.self_attention = MultiHeadAttention(c)
        self.cross_attention = MultiHeadAttention(c)
        self.feed_forward = FeedForward(c)
        self.self_residual, self.cross_residual, self.feed_forward_residual = (
            Residual(c) for _ in range(3)
        )

    def cross_kv(self, memory: Array) -> tuple[Array, KV]:
        """Keys and values of the encoder's output, computed once per source: [B,S,D] -> KV."""
        return memory, self.cross_attention.kv(memory)

    def __call__(
        self,
        y: Array,
        cross: KV,
        cache: KV | Cell | None,
        index: Array | int,
        masks: tuple[Mask | Array | None, Mask],
        positions: Array,
        bias: Array | None,
        train: bool,
    ) -> tuple[Array, KV | Cell | None]:
        """y [...,T,D] -> [...,T,D], and the cache with y's keys and values (None without cache).

        `masks` are the causal mask [1,T,S or L] and the source padding mask. Training, prefill and
        cached steps differ only in T and in whether there is a `cache`. For a recurrence, the first
        mask [B,T] marks the positions that start a sentence; None: only the first position does.
        `positions` [T] or [B,T] and `bias` [H,T,S or L] are those of self-attention.
        """
        mask, padding = masks
        state: Memory | KV | Cell | None = cache
        if self.config.recurrence:
            assert not isinstance(mask, Mask)
            mix = partial(self.recurrence, starts=mask)
        else:
            attention = self.self_attention
            mix = partial(
                self_attention, partial(attention.qkv, positions=positions), attention.project_out
            )
            assert isinstance(mask, Mask) and not isinstance(cache, Cell)
            if cache is None:
                state = AllPositions(attention, mask, bias, train)
            else:
                state = Cached(attention, cache, index, mask, bias)
        parts = Layer(
            mix=mix,
            feed_forward=partial(self.feed_forward, train=train),
            mix_residual=partial(self.self_residual, train=train),
            feed_forward_residual=partial(self.feed_forward_residual, train=train),
            cross=lambda y: self.cross_attention.attend(y, cross, padding, train=train),
            cross_residual=partial(self.cross_residual, train=train),
        )
        y, new_state = layer(parts, y, state)
        return y, None if cache is None else new_state
