"""Embeddings, the tied output projection, and learned positions (paper 3.4 and 3.5)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from model.config import ConfigError, TransformerConfig
from model.einsum import float32_einsum
from model.partitioned import partitioned
from model.positions import POSITIONS, add_positions
from model.sharding import constrain


class Embedding(nn.Module):
    """A table [V, D], used by rows as embedding and by columns as output projection."""

    vocab_size: int
    config: TransformerConfig

    def setup(self):
        # Entries of variance 1/D give inputs of unit variance after scaling by sqrt(D), and
        # output logits of unit variance.
        init = nn.initializers.normal(self.config.d_model**-0.5)
        self.table = self.param(
            "table",
            partitioned(init, ("vocab", "embed")),
            (self.vocab_size, self.config.d_model),
        )

    def __call__(self, tokens: Array) -> Array:
        """Embed ids, and scale by sqrt(D) if configured: [...,T] -> [...,T,D]."""
        # Under fsdp, gather whole table rows, as for any parameter, not parts of all activations.
        table = constrain(self.table.astype(self.config.dtype), "vocab", None)
        rows = jnp.take(table, tokens, axis=0)
        return constrain(rows * self.config.embedding_scale, "batch", "length", None)

    def logits(self, x: Array) -> Array:
        """x [...,T,D] -> float32 [...,T,V]."""
        table = self.table.astype(self.config.dtype)
        return float32_einsum("...td,vd->...tv", x, table)


class PositionEmbedding(nn.Module):
    """Add positions to embeddings; has a table if they are learned (model/positions.py)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array, positions: Array) -> Array:
        """x [...,T,D], positions [T] or [B,T] int32 -> [...,T,D]. Raises ConfigError."""
        c, table = self.config, None
        if POSITIONS[c.positions].table:
            if positions.ndim == 1 and positions.shape[0] > c.max_length:
                raise ConfigError(
                    f"{positions.shape[0]} positions, but the learned table has "
                    f"model.max_length={c.max_length}"
                )
            init = partitioned(nn.initializers.normal(c.d_model**-0.5), ("length", "embed"))
            table = self.param("table", init, (c.max_length, c.d_model))
        return add_positions(c, x, positions, table)
