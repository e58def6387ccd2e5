"""LoRA (Hu et al. 2021): a frozen matrix W becomes W + scale * A B.

A is initialized randomly and B with zeros, so that an adapted model initially equals its base
model. An adapter maps all input axes of a matrix to all of its output axes: a query's W [D,H,K] has
A [D,R] and B [R,H,K], an attention's output W [H,K,D] has A [H,K,R] and B [R,D]. If layers are
scanned, A and B are stacked like W.

Axes: R rank, others as in model/attention.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from model.adapter import COLLECTION, Adapter
from model.config import ConfigError
from model.family import Family
from model.mixers import MIXERS

_ATTENTION = ("query", "key", "value", "out")  # in the encoder, the decoder, and cross-attention
PROJECTIONS = (*_ATTENTION, "hidden", "gate", "feed_forward_out", "candidate", "forget")


@dataclass(frozen=True)
class LoRAModel:
    """A model whose trained parameters are adapters; its own parameters are `base`."""

    model: Family
    rank: int
    scale: float
    projections: tuple[str, ...]

    @property
    def config(self) -> Any:
        """The model's config."""
        return self.model.config

    def init_params(self, rng: Array) -> dict[str, Any]:
        """Initialize adapters, boxed with logical names. Raises ConfigError as `init_adapters`."""
        boxes = jax.eval_shape(self.model.init_params, rng)
        return init_adapters(rng, boxes, self.rank, self.projections)

    def apply(self, variables: dict[str, Any], *inputs, **options):
        """Call the model's `apply` with the base parameters and the scaled adapters."""
        scaled = jax.tree.map(
            lambda adapter: adapter._replace(b=adapter.b * self.scale),
            variables["params"],
            is_leaf=_is_adapter,
        )
        variables = {"params": variables["base"], COLLECTION: scaled}
        return self.model.apply(variables, *inputs, **options)


def init_adapters(rng: Array, params, rank: int, projections: tuple[str, ...]) -> dict[str, Any]:
    """Initialize adapters for the given projections of boxed (abstract) parameters, boxed alike.

    Adapters are at the matrices' paths in the tree. The entries of A have variance 1 / inputs.
    Raises ConfigError for a projection that the model does not have.
    """
    matrices = list(_matrices(params))
    available = {projection for projection, *_ in matrices}
    for name in projections:
        if name not in available:
            choices = ", ".join(projection for projection in PROJECTIONS if projection in available)
            raise ConfigError(f"lora.projections={name} is not in this model, which has: {choices}")
    tree: dict[str, Any] = {}
    for index, (projection, path, box) in enumerate(matrices):
        if projection in projections:
            subtree = tree
            for key in path[:-1]:
                subtree = subtree.setdefault(key, {})
            inputs = 2 if projection == "out" else 1
            subtree[path[-1]] = _adapter(jax.random.fold_in(rng, index), box, inputs, rank)
    return tree


def merge(base, adapters, scale: float):
    """Merge adapters into parameters: add scale * A B to each matrix that has an adapter."""
    return replace_subtree(base, merge_adapted(select_adapted(base, adapters), adapters, scale))


def merge_adapted(matrices, adapters, scale: float):
    """Merge adapters into a tree of only the adapted matrices, with the adapters' structure."""
    return jax.tree.map(partial(_add, scale), adapters, matrices, is_leaf=_is_adapter)


def select_adapted(tree, adapters):
    """Select the adapted part of a tree that has the parameters' structure."""
    if _is_adapter(adapters):
        return tree
    return {name: select_adapted(tree[name], subtree) for name, subtree in adapters.items()}


def replace_subtree(base, subtree):
    """Replace parameters by those of `subtree`, which has part of the tree's structure."""
    if not isinstance(subtree, dict):
        return subtree
    replaced = {name: replace_subtree(base[name], child) for name, child in subtree.items()}
    return {**base, **replaced}


def _matrices(params) -> Iterator[tuple[str, tuple[str, ...], nn.LogicallyPartitioned]]:
    """Iterate over the matrices that may have adapters: projection, path and box."""
    boxed = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
    for path, box in jax.tree.leaves_with_path(params, is_leaf=boxed):
        keys = tuple(key.key for key in path)
        match keys:
            case _, module, name if module.endswith("attention") and name in _ATTENTION:
                yield name, keys, box
            case _, "feed_forward", "out", "kernel":
                yield "feed_forward_out", keys, box
            case _, module, name, "kernel" if module == "feed_forward" or MIXERS.get(module):
                yield name, keys, box


def _adapter(
    rng: Array, box: nn.LogicallyPartitioned, inputs: int, rank: int
) -> Adapter[nn.LogicallyPartitioned]:
    names, shape = box.names, box.value.shape
    stacked = names[0] == "layers"
    end = stacked + inputs  # the end of the axes of A
    stddev = math.prod(shape[stacked:end]) ** -0.5
    a = stddev * jax.random.normal(rng, (*shape[:end], rank))
    b = jnp.zeros((*shape[:stacked], rank, *shape[end:]))
    return Adapter(
        nn.LogicallyPartitioned(a, (*names[:end], "rank")),
        nn.LogicallyPartitioned(b, (*names[:stacked], "rank", *names[end:])),
    )


def _add(scale: float, adapter: Adapter[Array], matrix: Array) -> Array:
    a, b = adapter
    stacked = tuple(range(a.ndim + b.ndim - 2 - matrix.ndim))
    dimensions = ((a.ndim - 1,), (len(stacked),)), (stacked, stacked)
    return matrix + scale * lax.dot_general(a, b, dimensions, precision=lax.Precision.HIGHEST)


def _is_adapter(x) -> bool:
    return isinstance(x, Adapter)
