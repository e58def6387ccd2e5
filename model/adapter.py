"""Applying a low-rank adapter (LoRA, Hu et al. 2021): x W + (x A) B.

If `apply` is given a collection "adapters", a tree with an `Adapter` in place of each adapted
matrix, the modules of these matrices add (x A) B to their products. W + A B is never computed, and
neither is a gradient of W.
"""

from typing import Generic, NamedTuple, TypeVar

import flax.linen as nn
from jax import Array

from model.einsum import einsum

COLLECTION = "adapters"
Matrix = TypeVar("Matrix")  # an array, or its box with axis names


class Adapter(NamedTuple, Generic[Matrix]):
    """A [inputs,R] and B [R,outputs] of one matrix; stacked if layers are scanned."""

    a: Matrix
    b: Matrix


def add_adapter(module: nn.Module, name: str, y: Array, x: Array, down: str, up: str) -> Array:
    """Add (x A) B to y = x W if the module's matrix `name` has an adapter.

    `down` and `up` are the einsum subscripts of the products with A and B.
    """
    if not module.has_variable(COLLECTION, name):
        return y
    adapter: Adapter[Array] = module.get_variable(COLLECTION, name)
    a, b = (matrix.astype(x.dtype) for matrix in adapter)
    return y + einsum(up, einsum(down, x, a), b).astype(y.dtype)
