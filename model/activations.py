"""What a feed-forward layer does between its two projections (paper 3.3; Shazeer 2020).

A row here is a kind of feed-forward everywhere: a value of `model.activation`, trained by
model/layers.py and decoded by decode/forward.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array


class Activation(NamedTuple):
    """An elementwise function [...,F] -> [...,F]; gated, its result times a second projection."""

    function: Callable[[Array], Array]
    gated: bool = False


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def _gelu_tanh(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(jax.nn.relu),
    "gelu": Activation(_gelu),
    "silu": Activation(jax.nn.silu),
    "reglu": Activation(jax.nn.relu, gated=True),
    "geglu": Activation(_gelu, gated=True),
    "swiglu": Activation(jax.nn.silu, gated=True),
    "gelu_tanh": Activation(_gelu_tanh),  # its first form, which some models have
    "geglu_tanh": Activation(_gelu_tanh, gated=True),
}
