"""Dense layer x W + b over the last axis, with a LoRA adapter of W if there is one."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from model.adapter import add_adapter
from model.einsum import bfloat16_on_cpu, einsum


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
            y = _add_bias(y, bias) if bfloat16_on_cpu(y) else _sum(y, bias)
        return add_adapter(self, "kernel", y, x, "...i,ir->...r", "...r,ro->...o")


def _sum(y: Array, bias: Array) -> Array:
    return y + jnp.expand_dims(bias, tuple(range(y.ndim - 1)))


@jax.custom_vjp
def _add_bias(y: Array, bias: Array) -> Array:
    """`_sum` with a barrier before the sum that is the bias's gradient.

    Merged with the operations before it, that sum takes some 30 times as long in bfloat16.
    """
    return _sum(y, bias)


def _gradients(_, gradient: Array) -> tuple[Array, Array]:
    gradient = jax.lax.optimization_barrier(gradient)
    return gradient, jnp.sum(gradient, tuple(range(gradient.ndim - 1)))


_add_bias.defvjp(lambda y, bias: (_sum(y, bias), None), _gradients)
