"""The residual connection around a sub-layer (paper 3.1 and 5.4; Xiong et al. 2020 for pre-norm).

A new order of its parts needs only a row of `RESIDUALS`: its name is a value of `model.norm`.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array

Sublayer = Callable[[Array], Array]  # [...,D] -> [...,D]


class ResidualKind(NamedTuple):
    """An order of norm, sub-layer, dropout and sum."""

    connect: Callable[[Sublayer, Sublayer, Array, Sublayer], Array]  # (norm, drop, x, sublayer)
    final_norm: bool  # whether a stack ends with one more norm


def _post(norm: Sublayer, drop: Sublayer, x: Array, sublayer: Sublayer) -> Array:
    return norm(x + drop(sublayer(x)))


def _pre(norm: Sublayer, drop: Sublayer, x: Array, sublayer: Sublayer) -> Array:
    return x + drop(sublayer(norm(x)))


RESIDUALS: dict[str, ResidualKind] = {
    "post": ResidualKind(_post, final_norm=False),
    # Without the final norm, a stack's output would not be normalized.
    "pre": ResidualKind(_pre, final_norm=True),
}
