"""Stopping rules of beam search.

In each step live hypotheses grow and finished ones enter a pool of the best found so far. A rule
says from both whether the sentence is over; at its length limit it is over by any rule.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from decode.length_normalization import Normalise


class Stopping(NamedTuple):
    """A rule: how large the pool is, and when the search is over.

    `pool(width)` is the number of finished hypotheses kept, at least `width`. `over(pool scores
    [B,P], best live sum [B], length, limits [B], normalise, width)` -> [B] bool.
    """

    pool: Callable[[int], int]
    over: Callable[[Array, Array, Array, Array, Normalise, int], Array]


def first(patience: float = 1.0) -> Stopping:
    """Over once `patience` * W hypotheses are finished (Kasai et al. 2022; 1: the usual rule).

    Fast. No guarantee: a live hypothesis might still have become the best.
    """

    def needed(width: int) -> int:
        return max(1, math.ceil(round(patience * width, 6)))  # 1.1 * 10 is 11, whatever floats say

    def over(scores, best_live, length, limits, normalise, width):
        return jnp.isfinite(scores).sum(1) >= needed(width)

    return Stopping(lambda width: max(width, needed(width)), over)


def now() -> Stopping:
    """Over once no live hypothesis would enter the W best if it ended at its present length.

    Hugging Face's default. No guarantee where length is rewarded: a longer end might still be best.
    """

    def over(scores, best_live, length, limits, normalise, width):
        return scores[:, width - 1] >= normalise(best_live, length)

    return Stopping(lambda width: width, over)


def bounded() -> Stopping:
    """Over once no live hypothesis can still enter the W best.

    Guarantee: the same W hypotheses as `never`, often sooner. A live one gains no log-probability,
    so its best end is at once or, where length is rewarded, at its limit.
    """

    def over(scores, best_live, length, limits, normalise, width):
        at_once, at_limit = normalise(best_live, length + 1), normalise(best_live, limits)
        return scores[:, width - 1] >= jnp.maximum(at_once, at_limit)

    return Stopping(lambda width: width, over)


def never() -> Stopping:
    """Over at the limit only, or when no hypothesis is live.

    Guarantee: the W best of all that ever ended while among the W best continuations.
    """
    return Stopping(lambda width: width, lambda scores, *_: jnp.zeros(scores.shape[0], bool))
