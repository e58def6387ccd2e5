"""Normalization over the last axis: LayerNorm (Ba et al. 2016), RMSNorm (Zhang and Sennrich 2019).

A new norm needs only a row of `NORMS`: its name is a value of `model.norm_kind`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from model.partitioned import partitioned

if TYPE_CHECKING:
    from model.config import TransformerConfig


class NormKind(NamedTuple):
    """A kind of norm: normalizes x [...,D]; then a scale is applied, and a bias if `bias`."""

    normalize: Callable[[Array, float], Array]  # (x, epsilon) -> an array like x
    bias: bool


def _rms(x: Array, epsilon: float) -> Array:
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon)


def _layer(x: Array, epsilon: float) -> Array:
    return _rms(x - x.mean(-1, keepdims=True), epsilon)


NORMS: dict[str, NormKind] = {
    "layer": NormKind(_layer, bias=True),
    "rms": NormKind(_rms, bias=False),
}


def normalize(kind: str, x: Array, scale: Array, bias: Array | None, epsilon: float) -> Array:
    """Normalize x [...,D] by a kind of norm, times scale [D], plus bias [D] if it has one."""
    vector = lambda v: jnp.expand_dims(v, tuple(range(x.ndim - 1)))  # noqa: E731
    x = NORMS[kind].normalize(x, epsilon) * vector(scale)
    return x if bias is None else x + vector(bias)


class Norm(nn.Module):
    """Normalization layer with trained scale and bias."""

    config: "TransformerConfig"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x [...,D] -> [...,D]; statistics in float32, the result in x's dtype."""
        c = self.config
        scale = self._vector("scale", nn.initializers.ones)
        bias = self._vector("bias", nn.initializers.zeros) if NORMS[c.norm_kind].bias else None
        y = normalize(c.norm_kind, x.astype(jnp.float32), scale, bias, c.norm_epsilon)
        return y.astype(x.dtype)

    def _vector(self, name: str, init) -> Array:
        init = partitioned(init, ("embed",))
        return self.param(name, init, (self.config.d_model,))
