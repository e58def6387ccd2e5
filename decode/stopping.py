"""Stopping rules of beam search.

Each step extends live hypotheses and retains the best finished ones. A rule decides from both
whether a sentence is done; at its length limit it is always done.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from decode.length_normalization import LengthNorm


class Stopping(NamedTuple):
    """A stopping rule: the number of retained finished hypotheses, and when the search is done.

    `capacity(width)` hypotheses are retained, at least `width`. `done(finished scores [B,P], best
    live sum [B], length, limits [B], length_norm, width)` -> [B] bool.
    """

    capacity: Callable[[int], int]
    done: Callable[[Array, Array, Array, Array, LengthNorm, int], Array]


def when_full(patience: float = 1.0) -> Stopping:
    """Done once `patience` * W hypotheses are finished (Kasai et al. 2022; 1: the usual rule).

    Fast. No guarantee: a live hypothesis might still become the best.
    """

    def num_finished(width: int) -> int:
        return max(1, math.ceil(round(patience * width, 6)))  # 1.1 * 10 is 11 despite rounding

    def done(scores, best_live, length, limits, length_norm, width):
        return jnp.isfinite(scores).sum(1) >= num_finished(width)

    return Stopping(lambda width: max(width, num_finished(width)), done)


def when_unbeaten() -> Stopping:
    """Done once no live hypothesis would enter the W best if it ended at its current length.

    Hugging Face's default. No guarantee if length is rewarded: a longer output might still be best.
    """

    def done(scores, best_live, length, limits, length_norm, width):
        return scores[:, width - 1] >= length_norm(best_live, length)

    return Stopping(lambda width: width, done)


def when_unbeatable() -> Stopping:
    """Done once no live hypothesis can still enter the W best.

    Guarantee: the same W hypotheses as `at_limit`, often sooner. A live hypothesis gains no
    log-probability, so its best score is that of ending now or, if length is rewarded, at its
    limit.
    """

    def done(scores, best_live, length, limits, length_norm, width):
        score_now = length_norm(best_live, length + 1)
        score_at_limit = length_norm(best_live, limits)
        return scores[:, width - 1] >= jnp.maximum(score_now, score_at_limit)

    return Stopping(lambda width: width, done)


def at_limit() -> Stopping:
    """Done at the limit only, or when no hypothesis is live.

    Guarantee: the W best of all hypotheses that ended among the W best continuations.
    """
    return Stopping(lambda width: width, lambda scores, *_: jnp.zeros(scores.shape[0], bool))
