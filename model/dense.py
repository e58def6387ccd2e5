"""Dense layer x W + b over the last axis, with a LoRA adapter of W if there is one."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from model.adapter import add_adapter
from model.einsum import bfloat16_on_cpu, einsum, float32_einsum
from model.platform import current_platform

_SUBLANES = 8  # the fewest rows of a matrix in a TPU


class Dense(nn.Module):
    """Dense layer; inputs have the layer's dtype, to which the float32 weights are cast."""

    features: int
    dtype: Any
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer | None = None  # None: no bias
    # Compute with the transposed kernel [O,I]. The kernel's gradient is then computed in this
    # form. With I > O, the other one takes 1.5 times as long on a CPU.
    transposed: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[...,I] -> [...,O]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        kernel = kernel.astype(self.dtype)
        if self.transposed:
            # Without the barrier the compiler would choose the other form.
            y = einsum("...i,oi->...o", x, jax.lax.optimization_barrier(kernel.T))
        else:
            y = einsum("...i,io->...o", x, kernel)
        if self.bias_init is not None:
            bias = self.param("bias", self.bias_init, (self.features,)).astype(self.dtype)
            y = _add_bias(y, bias)
        return add_adapter(self, "kernel", y, x, "...i,ir->...r", "...r,ro->...o")


@jax.custom_vjp
def _add_bias(y: Array, bias: Array) -> Array:
    return y + jnp.expand_dims(bias, tuple(range(y.ndim - 1)))


def _gradients(_, gradient: Array) -> tuple[Array, Array]:
    return gradient, _bias_gradient(gradient)


_add_bias.defvjp(lambda y, bias: (_add_bias(y, bias), None), _gradients)


def _bias_gradient(gradient: Array) -> Array:
    """The sum of [...,O] over all positions, in the form that is fastest on the platform."""
    if current_platform() == "tpu":
        # The matrix unit sums in float32, while the vector unit computes what follows.
        rows = gradient.reshape(-1, gradient.shape[-1])
        ones = jnp.ones((_SUBLANES, len(rows)), gradient.dtype)
        return float32_einsum("xn,no->xo", ones, rows)[0].astype(gradient.dtype)
    if bfloat16_on_cpu(gradient):
        # Merged with the operations before it, the sum takes some 30 times as long.
        gradient = jax.lax.optimization_barrier(gradient)
    return jnp.sum(gradient, tuple(range(gradient.ndim - 1)))
