"""Matrix products: `einsum` in the operands' dtype, and `float32_einsum` with results in float32.

Both accumulate in float32. On a CPU, XLA has fast bfloat16 products only with float32 results;
products with bfloat16 results it computes in float32, at about a third of the speed on a processor
with bfloat16 instructions (experiments/LOG.md). There, `einsum` rounds float32 results instead,
which are the same values, and does the same in the backward pass.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from model.platform import current_platform

_LETTERS = "ABCDEFGH"  # stand for the axes of an ellipsis


def einsum(subscripts: str, x: Array, y: Array) -> Array:
    """jnp.einsum of x and y, of the same dtype, with the result in that dtype.

    Each axis of x or y has to be an axis of the other one or of the result.
    """
    if not bfloat16_on_cpu(x):
        return jnp.einsum(subscripts, x, y)
    return _rounded(_without_ellipsis(subscripts, x.ndim, y.ndim), x, y)


def float32_einsum(subscripts: str, x: Array, y: Array) -> Array:
    """jnp.einsum of x and y, of the same dtype, with the result in float32.

    XLA's CPU compiler decides early that a library computes a bfloat16 product. If the result is
    transposed, it later swaps the operands instead, and may produce a form that neither the library
    nor XLA itself supports: an error at run time ("DotThunk::Execute: BF16 x BF16 = F32"). The
    barrier prevents this. It costs nothing, since a product is never fused with the operation that
    follows. Other programs have no barrier.
    """
    product = jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(product) if bfloat16_on_cpu(x) else product


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded(subscripts: str, x: Array, y: Array) -> Array:
    return float32_einsum(subscripts, x, y).astype(x.dtype)


def _forward(subscripts: str, x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rounded(subscripts, x, y), (x, y)


def _backward(subscripts: str, operands: tuple[Array, Array], gradient: Array):
    x, y = operands
    inputs, result = subscripts.split("->")
    left, right = inputs.split(",")
    return (
        _rounded(f"{result},{right}->{left}", gradient, y),
        _rounded(f"{left},{result}->{right}", x, gradient),
    )


_rounded.defvjp(_forward, _backward)


def bfloat16_on_cpu(x: Array) -> bool:
    """Whether x is bfloat16 in a program for CPUs, which then needs the forms described above."""
    return x.dtype == jnp.bfloat16 and current_platform() == "cpu"


def _without_ellipsis(subscripts: str, *ranks: int) -> str:
    """Name the axes of "..." so that a gradient may sum over them."""
    inputs, result = subscripts.split("->")
    count = 0
    operands = []
    for operand, rank in zip(inputs.split(","), ranks, strict=True):
        if "..." in operand:
            count = rank - len(operand) + 3
        operands.append(operand.replace("...", _LETTERS[:count]))
    return f"{','.join(operands)}->{result.replace('...', _LETTERS[:count])}"
