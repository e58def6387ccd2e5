"""Matrix products of any input dtype with float32 accumulation and output."""

import jax
import jax.numpy as jnp
from jax import Array


def float32_einsum(subscripts: str, x: Array, y: Array) -> Array:
    """jnp.einsum of x and y, of one type, with the result in float32.

    XLA's CPU compiler decides early that a library computes a bfloat16 product. Where the result is
    transposed, it later swaps the operands instead, and may arrive at a form that neither the
    library nor its own code has: an error when the program runs ("DotThunk::Execute: BF16 x BF16 =
    F32"). The barrier keeps transposes out of the product there; a product is never fused with what
    follows it, so that nothing is lost. Other programs have none.
    """
    product = jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)
    if x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu":
        return jax.lax.optimization_barrier(product)
    return product
