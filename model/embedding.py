"""Embeddings, the tied output projection, and positions (paper 3.4 and 3.5)."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from model.config import ConfigError, TransformerConfig
from model.products import float32_einsum
from model.sharding import constrain


class Embedding(nn.Module):
    """A table [V, D], read by rows as embedding and by columns as output projection."""

    vocab_size: int
    config: TransformerConfig

    def setup(self):
        # Rows of variance 1/D become unit vectors' scale times sqrt(D) on the way in, and logits
        # of unit variance on the way out.
        init = nn.initializers.normal(self.config.d_model**-0.5)
        self.table = self.param(
            "table",
            nn.with_logical_partitioning(init, ("vocab", "embed")),
            (self.vocab_size, self.config.d_model),
        )

    def __call__(self, tokens: Array) -> Array:
        """Embed and scale by sqrt(D), if so configured: ids [...,T] -> [...,T,D]."""
        # Under fsdp whole rows are gathered, as of any parameter, not parts of all activations.
        table = constrain(self.table.astype(self.config.dtype), "vocab", None)
        rows = jnp.take(table, tokens, axis=0)
        return constrain(rows * self.config.embedding_scale, "batch", "length", None)

    def logits(self, x: Array) -> Array:
        """x [...,T,D] -> float32 [...,T,V]."""
        table = self.table.astype(self.config.dtype)
        return float32_einsum("...td,vd->...tv", x, table)


class Positions(nn.Module):
    """What is added to embeddings so that order is seen: sinusoids, a learned table, or nothing.

    Rotary positions add nothing here: attention rotates queries and keys (`rotate`). Nor do
    relative ones, which are added to its scores (model/relative.py).
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self, positions: Array) -> Array | None:
        """positions [...,T] int32 -> [...,T,D] in the activation dtype, or None."""
        c = self.config
        if c.positions in ("rotary", "relative"):
            return None
        if c.positions == "learned":
            if positions.ndim == 1 and positions.shape[0] > c.max_length:
                raise ConfigError(
                    f"{positions.shape[0]} positions, but the learned table has "
                    f"model.max_length={c.max_length}"
                )
            init = nn.initializers.normal(c.d_model**-0.5)
            init = nn.with_logical_partitioning(init, ("length", "embed"))
            table = self.param("table", init, (c.max_length, c.d_model))
            return jnp.take(table, positions, axis=0, mode="clip").astype(c.dtype)
        return encodings(c, positions).astype(c.dtype)


def encodings(c: TransformerConfig, positions: Array) -> Array:
    """The sinusoids of a model that has some: positions [...,T], from 0 -> float32 [...,T,D]."""
    if c.first_position:
        positions = positions + c.first_position
    whole = c.positions == "sinusoidal_tensor2tensor"
    return sinusoids(positions, c.d_model, c.positions != "sinusoidal", whole)


def sinusoids(positions: Array, width: int, halves: bool = False, whole: bool = False) -> Array:
    """sin and cos of positions [...,T] at wavelengths from 2 pi to 10000 * 2 pi: float32 [...,T,D].

    Interleaved as the paper writes it (sin at 2i, cos at 2i + 1), or `halves`: all the sines,
    then all the cosines, as Hugging Face has it in Marian's models. By the paper's formula the
    longest wavelength is a little less than 10000 * 2 pi; with the `whole` range it is that, as in
    tensor2tensor, fairseq and Marian itself.
    """
    steps = max(width - 2, 1) if whole else width
    rates = np.exp(np.arange(0, width, 2) * (-math.log(10_000.0) / steps)).astype(np.float32)
    rates = jnp.expand_dims(jnp.asarray(rates), tuple(range(positions.ndim)))
    angles = positions.astype(jnp.float32)[..., None] * rates
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    if halves:
        return jnp.concatenate([sin, cos], axis=-1)
    return jnp.stack([sin, cos], axis=-1).reshape(*positions.shape, width)


def rotate(x: Array, positions: Array) -> Array:
    """Rotary positions (Su et al. 2021): x [...,H,T,K] turned by angles that grow with position.

    Positions are [T], or [B,T] where x is [B,H,T,K].

    The i-th and the (K/2 + i)-th entry are one pair, turned by position / 10000^(2i/K); products
    of queries and keys then depend on the distance of their positions only.
    """
    half = sinusoids(positions, x.shape[-1], halves=True)
    if positions.ndim > 1:
        half = half[:, None]  # for all heads
    half = jnp.expand_dims(half, tuple(range(x.ndim - half.ndim)))
    sin, cos = jnp.split(half, 2, axis=-1)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
