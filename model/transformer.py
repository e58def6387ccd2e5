"""The Transformer (paper section 3, figure 1): encode, cross_kv, decode.

Axes: B batch, W beam, T target length, S source length, L cache length, D d_model, V vocabulary.
"""

from dataclasses import replace
from functools import partial
from inspect import signature
from operator import itemgetter
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from model.adapter import COLLECTION
from model.attention import KV
from model.config import ConfigError, TransformerConfig
from model.dropout import Dropout
from model.einsum import float32_einsum
from model.embedding import Embedding, PositionEmbedding
from model.family import Features
from model.layers import DecoderLayer, EncoderLayer
from model.masks import Mask, causal_mask, padding_mask, segment_mask, segment_positions
from model.norm import Norm
from model.partitioned import partitioned
from model.positions import POSITIONS
from model.recurrence import Cell
from model.relative_position_bias import RelativeBias
from model.residual import RESIDUALS
from model.sharding import constrain

PAD = 0  # the id that pads short rows; no query attends to source positions with it
LayerState = TypeVar("LayerState", KV, Cell)  # a decoder layer's state of earlier tokens
Cache = tuple[KV, ...] | tuple[Cell, ...]
Segments = tuple[Array, Array]  # the source's [B,S] and the target's [B,T]


class Transformer(nn.Module):
    """Encoder and decoder over one parameter tree; every method is a pure function of it."""

    config: TransformerConfig

    def setup(self):
        c = self.config
        if c.tying == "all":
            self.embedding = Embedding(c.vocab_size, c)
        else:
            self.source_embedding = Embedding(c.vocab_size, c)
            self.target_embedding = Embedding(c.target_vocab, c)
        if c.tying == "none":
            init = nn.initializers.xavier_uniform()
            self.output = self.param(
                "output",
                partitioned(init, ("embed", "vocab")),
                (c.d_model, c.target_vocab),
            )
        if c.output_bias:
            zeros = partitioned(nn.initializers.zeros, ("vocab",))
            self.output_bias = self.param("output_bias", zeros, (c.target_vocab,))
        self.source_positions = PositionEmbedding(c)
        self.target_positions = PositionEmbedding(c)
        self.encoder = _stack(EncoderLayer, c, c.encoder_layers, inputs=(nn.broadcast,) * 4)
        self.decoder = _stack(
            DecoderLayer, c, c.decoder_layers, inputs=(0, 0, *(nn.broadcast,) * 5)
        )
        if c.embedding_norm:
            self.source_embedding_norm, self.target_embedding_norm = Norm(c), Norm(c)
        if POSITIONS[c.positions].bias:
            self.encoder_bias, self.decoder_bias = RelativeBias(c, True), RelativeBias(c, False)
        if RESIDUALS[c.norm].final_norm:
            self.encoder_norm, self.decoder_norm = Norm(c), Norm(c)
        self.drop = Dropout(c.dropout, c.dropout_bits)

    def __call__(
        self, src: Array, tgt_in: Array, segments: Segments | None = None, *, train: bool = False
    ) -> Array:
        """Teacher-forced: src [B,S], tgt_in [B,T] (BOS first) -> logits float32 [B,T,V].

        If rows hold several sentences, `segments` [B,S] and [B,T] number them from 1, PAD is 0:
        each sentence is processed independently of the others.
        """
        hidden, target = self._teacher_forced(src, tgt_in, segments, train)
        return self._logits(hidden, target)

    @nn.nowrap
    def init_params(self, rng: Array) -> Any:
        """Initialize parameters, boxed with logical axis names."""
        token = jnp.zeros((1, 1), jnp.int32)
        return self.init(rng, token, token)["params"]

    def features(self, batch, *, train: bool = False) -> Features:
        """Compute the input of the loss for a `data.batch.Batch`: hidden states, table, targets."""
        hidden, target = self._teacher_forced(batch.src, batch.tgt_in, batch.segments, train)
        table = self.output.T if self.config.tying == "none" else target.table
        bias = self.output_bias if self.config.output_bias else None
        weights = (batch.tgt != PAD).astype(jnp.float32)
        return Features(hidden, table, bias, batch.tgt, weights)

    def _teacher_forced(self, src, tgt_in, segments, train) -> tuple[Array, Embedding]:
        memory = self.encode(src, None if segments is None else segments[0], train=train)
        cross = self.cross_kv(memory)
        hidden, _, target = self._decode(tgt_in, cross, src != PAD, segments=segments, train=train)
        return hidden, target

    def encode(self, src: Array, segments: Array | None = None, *, train: bool = False) -> Array:
        """Encode src [B,S], with `segments` [B,S] as in `__call__` -> memory [B,S,D]."""
        embedding = self.embedding if self.config.tying == "all" else self.source_embedding
        if segments is None:
            positions = jnp.arange(src.shape[-1], dtype=jnp.int32)
            words = (src != PAD).astype(jnp.int32)  # one segment
            mask = Mask(padding_mask(src != PAD), (words, words))
        else:
            positions = segment_positions(segments)
            mask = Mask(segment_mask(segments, segments), (segments, segments))
        norm = self.source_embedding_norm if self.config.embedding_norm else None
        x = self._embed(src, embedding, self.source_positions, norm, positions, train)
        bias = None
        if POSITIONS[self.config.positions].bias:
            row_positions = jnp.arange(src.shape[-1], dtype=jnp.int32)
            bias = self.encoder_bias(row_positions, row_positions)
        if self.config.scan_layers:
            x, _ = self.encoder(x, mask, positions, bias, train)
        else:
            for layer in self.encoder:
                x, _ = layer(x, mask, positions, bias, train)
        return self.encoder_norm(x) if RESIDUALS[self.config.norm].final_norm else x

    def cross_kv(self, memory: Array) -> tuple[KV, ...]:
        """Cross-attention keys and values of memory [B,S,D] per decoder layer, [B,H,S,K]."""
        if self.config.scan_layers:
            stacked: KV = self.decoder.cross_kv(memory)[1]
            return _unstack_layers(stacked, self.config.decoder_layers)
        return tuple(layer.cross_kv(memory)[1] for layer in self.decoder)

    def decode(
        self,
        tokens: Array,
        cross: tuple[KV, ...],
        src_mask: Array,
        cache: Cache | None = None,
        index: Array | int = 0,
    ) -> tuple[Array, Cache | None]:
        """Next-token logits after each of `tokens` [B,(W,)T] -> float32 [B,(W,)T,V], cache.

        Without a cache, `tokens` is the complete target prefix. With a cache, `tokens` follow the
        `index` tokens in it: several tokens (prefill) or one (step).
        """
        hidden, cache, target = self._decode(tokens, cross, src_mask, cache, index)
        return self._logits(hidden, target), cache

    def _decode(
        self, tokens, cross, src_mask, cache=None, index=0, *, segments=None, train=False
    ) -> tuple[Array, Cache | None, Embedding]:
        """`decode` up to the logits: hidden states [B,(W,)T,D], cache, target embedding."""
        c = self.config
        has_attention = c.recurrence is None
        causal = None
        if has_attention:
            keys = tokens.shape[-1] if cache is None else cache[0].k.shape[-2]
            causal = causal_mask(tokens.shape[-1], keys, index)
        if segments is None:
            positions = jnp.arange(tokens.shape[-1], dtype=jnp.int32)
            positions += jnp.asarray(index, jnp.int32)
            row, source_row = (jnp.ones_like(tokens), src_mask.astype(jnp.int32))
            is_parallel = cache is None and tokens.ndim == 2  # no cache, no beams
            masks: tuple[Mask | Array | None, Mask] = (
                None if causal is None else Mask(causal, (row, row) if is_parallel else None, True),
                Mask(padding_mask(src_mask), (row, source_row) if is_parallel else None),
            )
        else:
            source, target_segments = segments
            positions = segment_positions(target_segments)
            self_mask = (
                positions == 0
                if causal is None
                else Mask(
                    causal[None] & segment_mask(target_segments, target_segments),
                    (target_segments, target_segments),
                    causal=True,
                )
            )
            masks = (
                self_mask,
                Mask(segment_mask(target_segments, source), (target_segments, source)),
            )
        target = self.embedding if c.tying == "all" else self.target_embedding
        norm = self.target_embedding_norm if c.embedding_norm else None
        y = self._embed(tokens, target, self.target_positions, norm, positions, train)
        bias = None
        if POSITIONS[c.positions].bias:
            queries = jnp.arange(tokens.shape[-1], dtype=jnp.int32) + jnp.asarray(index, jnp.int32)
            bias = self.decoder_bias(queries, jnp.arange(keys, dtype=jnp.int32))
        if c.scan_layers:
            stacked = None if cache is None else _stack_layers(cache)
            y, new_cache = self.decoder(
                y, _stack_layers(cross), stacked, index, masks, positions, bias, train
            )
            new_cache = None if cache is None else _unstack_layers(new_cache, c.decoder_layers)
        else:
            layer_caches = []
            caches = cache or (None,) * c.decoder_layers
            for layer, cross_kv, layer_cache in zip(self.decoder, cross, caches, strict=True):
                y, layer_cache = layer(
                    y, cross_kv, layer_cache, index, masks, positions, bias, train
                )
                layer_caches.append(layer_cache)
            new_cache = None if cache is None else tuple(layer_caches)
        if RESIDUALS[c.norm].final_norm:
            y = self.decoder_norm(y)
        return y, new_cache, target

    def _embed(self, tokens, embedding, table, norm, positions, train) -> Array:
        x = table(embedding(tokens), positions)
        x = x if norm is None else norm(x)
        return self.drop(constrain(x, "batch", "length", None), train=train)

    def _logits(self, y: Array, embedding: Embedding) -> Array:
        if self.config.tying != "none":
            logits = embedding.logits(y)
        else:
            kernel = self.output.astype(self.config.dtype)
            logits = float32_einsum("...td,dv->...tv", y, kernel)
        if self.config.output_bias:
            logits += jnp.expand_dims(self.output_bias, tuple(range(logits.ndim - 1)))
        return constrain(logits, "batch", "length", "vocab")


def init_cache(config: TransformerConfig, batch: tuple[int, ...], length: int) -> Cache:
    """KV cache for `length` tokens: one KV of zeros [*batch,H,L,K] per decoder layer.

    For a recurrence, one Cell of zeros [*batch,D] for any length. Raises ConfigError if `length`
    exceeds the learned positions.
    """
    if config.max_positions and length > config.max_positions:
        raise ConfigError(
            f"a cache of {length} tokens, but the learned positions end at "
            f"model.max_length={config.max_length}"
        )
    if config.recurrence:
        return tuple(
            Cell(jnp.zeros((*batch, config.d_model))) for _ in range(config.decoder_layers)
        )
    heads = (*batch, config.kv_heads, length)
    zeros = partial(jnp.zeros, dtype=config.dtype)
    return tuple(
        KV(zeros((*heads, config.key_width)), zeros((*heads, config.value_width)))
        for _ in range(config.decoder_layers)
    )


def unstack_layers(config: TransformerConfig, params) -> tuple[TransformerConfig, dict]:
    """Unstack scanned layers: decoding reads the parameters of single layers faster."""
    if not config.scan_layers:
        return config, params
    params = dict(params)
    for name, count in ("encoder", config.encoder_layers), ("decoder", config.decoder_layers):
        stacked = params.pop(name)
        for i in range(count):
            params[f"{name}_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
    return replace(config, scan_layers=False), params


def _stack(layer: type[nn.Module], config: TransformerConfig, count: int, inputs: tuple):
    """`count` layers: a list of modules, or one module scanned over stacked parameters.

    For each argument after the carry, `inputs` is 0 if it is stacked by layer, or nn.broadcast.
    """
    if config.remat != "none":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        layer = nn.remat(
            layer,
            policy=policy if config.remat == "dots" else None,
            prevent_cse=not config.scan_layers,  # a scan already separates forward and backward
            static_argnums=list(signature(layer.__call__).parameters).index("train"),
            methods=["__call__"],
        )
    if not config.scan_layers:
        return [layer(config) for _ in range(count)]
    shared = dict(
        variable_axes={"params": 0, "intermediates": 0, COLLECTION: 0},
        split_rngs={"params": True, "dropout": True},
        length=count,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    methods = {"__call__": dict(in_axes=inputs, **shared)}
    if hasattr(layer, "cross_kv"):
        methods["cross_kv"] = shared
    return nn.scan(layer, methods=methods)(config)


def _stack_layers(layers: tuple[LayerState, ...]) -> LayerState:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def _unstack_layers(stacked: LayerState, count: int) -> tuple[LayerState, ...]:
    return tuple(jax.tree.map(itemgetter(i), stacked) for i in range(count))
