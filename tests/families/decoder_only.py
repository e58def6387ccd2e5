"""An example decoder-only model family: everything that a new family must implement."""

from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from data.batch import PAD, Batch
from decode import kv_cache
from decode.forward import EncoderDecoder, embed, final_norm, layer_parts, qkv_of
from decode.kv_block import Block, Blocks, block_kind
from decode.memory import attention
from model import TransformerConfig
from model.embedding import Embedding, PositionEmbedding
from model.family import Features
from model.layer import layer
from model.layers import EncoderLayer
from model.masks import Mask, causal_mask
from model.norm import Norm


@dataclass(frozen=True)
class DecoderOnlyConfig(TransformerConfig):
    """Encoder-decoder settings; those of the encoder have no effect."""


class DecoderOnly(nn.Module):
    """The source is a prompt: target tokens attend to it and to earlier target tokens."""

    config: DecoderOnlyConfig

    def setup(self):
        c = self.config
        self.embedding, self.target_positions = Embedding(c.vocab_size, c), PositionEmbedding(c)
        self.decoder = [EncoderLayer(c) for _ in range(c.decoder_layers)]
        self.decoder_norm = Norm(c)

    @nn.nowrap
    def init_params(self, rng):
        token = jnp.zeros((1, 1), jnp.int32)
        return self.init(rng, Batch(token, token), method="features")["params"]

    def features(self, batch, *, train=False):
        length = batch.src.shape[1]
        ids = jnp.concatenate([batch.src, batch.tgt_in], axis=1)
        positions = jnp.arange(ids.shape[1], dtype=jnp.int32)
        positions = jnp.where(positions < length, positions, positions - length)  # restart at 0
        is_target = jnp.arange(ids.shape[1])[None] >= length
        causal = causal_mask(ids.shape[1], ids.shape[1])[None]
        mask = Mask(causal & ((ids != PAD) | is_target)[:, None, None])
        x = self.target_positions(self.embedding(ids), positions)
        for decoder_layer in self.decoder:
            x, _ = decoder_layer(x, mask, positions, None, train)
        weights = (batch.tgt != PAD).astype(jnp.float32)
        hidden = self.decoder_norm(x)[:, length:]
        return Features(hidden, self.embedding.table, None, batch.tgt, weights)


class PromptMemory(NamedTuple):
    """A `Memory` of the prompt, shared by all beams, and of each beam's tokens."""

    prompt: Block | None  # None during prefill
    mask: jax.Array
    blocks: Blocks = ()
    masks: tuple[jax.Array, ...] = ()
    slot: jax.Array | int = 0

    def attend(self, q, k, v):
        if self.prompt is None:
            block = block_kind().from_heads(k, v)
            return attention(q, [block], [self.mask])[0], (block, None)
        blocks = kv_cache.write(self.blocks, k, v, self.slot)
        mixed, weights = attention(q, [self.prompt, *blocks], [self.mask, *self.masks])
        return mixed, (blocks, weights[0].mean(1))


class DecoderOnlySearch(EncoderDecoder):
    """Generator of the family: cache and logits are those of the encoder-decoder."""

    def start(self, weights, request):
        c, ids = self.config, request.src
        positions = jnp.arange(ids.shape[1], dtype=jnp.int32)
        mask = causal_mask(*ids.shape[1:] * 2) & (ids != PAD)[:, None]
        x, prompt = embed(c, weights, "target", ids, positions), []
        for w in weights.stack("decoder"):
            parts = layer_parts(c, w, partial(qkv_of, c, w["attention"], positions=positions))
            x, (block, _) = layer(parts, x, PromptMemory(None, mask))
            prompt.append(block)
        return tuple(prompt), ids != PAD

    def step(self, weights, context, tokens, cache, index):
        c, (prompt, mask), position = self.config, context, jnp.reshape(index, (1,))
        y = embed(c, weights, "target", tokens, position)
        cache, masks, slot = kv_cache.advance(cache, index)
        rows = cache.ancestry.shape[:2]
        repeat_rows = lambda x: jnp.repeat(x, rows[0] // len(x), axis=0)  # noqa: E731  # samples are rows
        layers, mass = [], []
        for w, block, blocks_of_layer in zip(
            weights.stack("decoder"), prompt, cache.layers, strict=True
        ):
            qkv = partial(qkv_of, c, w["attention"], positions=position)
            block = jax.tree.map(repeat_rows, block)
            memory = PromptMemory(block, repeat_rows(mask)[:, None], blocks_of_layer, masks, slot)
            y, (blocks, weight) = layer(layer_parts(c, w, qkv, rows), y, memory)
            layers.append(blocks)
            mass.append(weight.reshape(*tokens.shape, -1))
        y = final_norm(c, weights, "decoder", y)
        return y, cache._replace(layers=tuple(layers)), reduce(add, mass) / len(mass)
