"""Relative position bias (T5, Raffel et al. 2020): a learned score per head and distance.

Distances are mapped to buckets: small ones have one bucket each, larger ones share buckets spaced
by the logarithm of the distance, up to a maximum distance. The layers of a stack share one table
[R,H], a number per bucket and head, which is added to self-attention scores before the softmax.
Axes: R buckets, H heads, T queries, S keys.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from model.config import TransformerConfig
from model.partitioned import partitioned


class RelativeBias(nn.Module):
    """The bias table of one stack: `bidirectional` in the encoder, backward in the decoder."""

    config: TransformerConfig
    bidirectional: bool

    @nn.compact
    def __call__(self, queries: Array, keys: Array) -> Array:
        """Positions [T] of queries and [S] of keys -> bias float32 [H,T,S]."""
        c = self.config
        init = nn.initializers.normal(c.d_model**-0.5)
        table = self.param(
            "table",
            partitioned(init, (None, "heads")),
            (c.relative_num_buckets, c.num_heads),
        )
        return relative_bias(table, queries, keys, c.relative_max_distance, self.bidirectional)


def relative_bias(
    table: Array, queries: Array, keys: Array, max_distance: int, bidirectional: bool
) -> Array:
    """Bias from a table [R,H] for positions [T] of queries and [S] of keys -> [H,T,S].

    Sentences that share a row need no positions of their own: the distance between positions of
    the same sentence is the same in the row as in the sentence.
    """
    index = buckets(table.shape[0], max_distance, bidirectional)
    rows = jnp.take(table, index, axis=0)  # by distance
    distances = jnp.clip(keys[None, :] - queries[:, None], -max_distance, max_distance)
    return jnp.take(rows, distances + max_distance, axis=0, mode="clip").transpose(2, 0, 1)


def buckets(num_buckets: int, max_distance: int, bidirectional: bool) -> np.ndarray:
    """The bucket of each distance, key minus query, from -D to D = `max_distance`: int32 [2D+1].

    Larger distances share the buckets of these two. Half of the buckets have one distance each. If
    `bidirectional`, each direction has half of all buckets; otherwise all keys after the query have
    the bucket of distance 0.
    """
    distances = np.arange(-max_distance, max_distance + 1)
    magnitudes = np.abs(distances) if bidirectional else np.maximum(-distances, 0)
    num_buckets = num_buckets // 2 if bidirectional else num_buckets
    num_exact = num_buckets // 2
    # In float32, as in T5's code: a logarithm may fall on a bucket boundary.
    logs = np.log(np.maximum(magnitudes, num_exact).astype(np.float32) / np.float32(num_exact))
    scale = np.float32(math.log(max_distance / num_exact))
    coarse = logs / scale * np.float32(num_buckets - num_exact)
    coarse = np.minimum(num_exact + coarse.astype(np.int32), num_buckets - 1)
    offset = num_buckets * (distances > 0) if bidirectional else 0
    return (offset + np.where(magnitudes < num_exact, magnitudes, coarse)).astype(np.int32)
