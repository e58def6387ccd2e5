"""Matrix products of any input dtype with float32 accumulation and output."""

import jax
import jax.numpy as jnp
from jax import Array

from model.platform import current_platform


def float32_einsum(subscripts: str, x: Array, y: Array) -> Array:
    """jnp.einsum of x and y, of the same dtype, with the result in float32.

    XLA's CPU compiler decides early that a library computes a bfloat16 product. If the result is
    transposed, it later swaps the operands instead, and may produce a form that neither the library
    nor XLA itself supports: an error at run time ("DotThunk::Execute: BF16 x BF16 = F32"). The
    barrier prevents this. It costs nothing, since a product is never fused with the operation that
    follows. Other programs have no barrier.
    """
    product = jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)
    if x.dtype == jnp.bfloat16 and current_platform() == "cpu":
        return jax.lax.optimization_barrier(product)
    return product
