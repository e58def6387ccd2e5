"""Activations of the feed-forward layer, gated or not (paper 3.3; Shazeer 2020).

A new activation needs only a row of `ACTIVATIONS`: its name is a value of `model.activation`,
trained by model/layers.py and decoded by decode/forward.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array


class Activation(NamedTuple):
    """An elementwise function [...,F] -> [...,F]; if gated, it multiplies a second projection."""

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
    "gelu_tanh": Activation(_gelu_tanh),  # the original approximation, which some models use
    "geglu_tanh": Activation(_gelu_tanh, gated=True),
}
