"""Length normalization and coverage penalty (Wu et al. 2016).

A `LengthNorm` is a function (sum of log-probabilities, length with EOS) -> score, of any shapes
that broadcast; it never falls as the sum rises.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

LengthNorm = Callable[[Array, Array | int], Array]


def length_penalty(length: Array | int, alpha: float) -> Array:
    """((5 + n) / 6) ** alpha, n the number of tokens with EOS (Wu et al. 2016, equation 14)."""
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def gnmt(alpha: float) -> LengthNorm:
    """The paper's rule (6.1): log P / ((5 + n) / 6)^alpha; alpha 0 leaves log P unchanged."""
    return lambda total, length: total / length_penalty(length, alpha)


def average(alpha: float = 1.0) -> LengthNorm:
    """log P / n^alpha: with 1 the mean log-probability per token, as in fairseq and Marian."""
    return lambda total, length: total / jnp.asarray(length, jnp.float32) ** alpha


def coverage_penalty(coverage_sum: Array, valid: Array, beta: float) -> Array:
    """beta * sum over source positions of log(min(attention received, 1)) (equation 15).

    `coverage_sum` [B,W,S] sums the cross-attention weights of all steps, `valid` [B,S] marks real
    positions -> [B,W], at most 0.
    """
    attention_mass = jnp.clip(coverage_sum, 1e-6, 1.0)  # finite without attention
    return beta * jnp.sum(jnp.where(valid[:, None], jnp.log(attention_mass), 0.0), axis=-1)
