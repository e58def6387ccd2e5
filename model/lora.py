"""LoRA (Hu et al. 2021): a frozen matrix W becomes W + scale * A B.

A begins random and B as zeros, so that an adapted model begins as exactly the model it adapts. A
matrix goes from all its input axes to all its output axes: a query's W [D,H,K] has A [D,R] and
B [R,H,K], an attention's end W [H,K,D] has A [H,K,R] and B [R,D]. Of layers that are scanned, A and
B are stacked as W is.

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
from model.config import ConfigError, TransformerConfig
from model.mixers import MIXERS
from model.transformer import Transformer

_ATTENTION = ("query", "key", "value", "out")  # of the encoder, the decoder, and across
PROJECTIONS = (*_ATTENTION, "hidden", "gate", "feed_forward_out", "candidate", "forget")


@dataclass(frozen=True)
class LoRAModel:
    """A Transformer of which adapters are the parameters, and its own ones are given as `base`.

    Its methods are those of a Flax module that training knows.
    """

    model: Transformer
    rank: int
    scale: float
    projections: tuple[str, ...]

    @property
    def config(self) -> TransformerConfig:
        """The Transformer's."""
        return self.model.config

    def init_params(self, rng: Array) -> dict[str, Any]:
        """Fresh adapters, in boxes of logical names. Raises ConfigError as `init_adapters`."""
        boxes = jax.eval_shape(self.model.init_params, rng)
        return init_adapters(rng, boxes, self.rank, self.projections)

    def apply(self, variables: dict[str, Any], *inputs, **options):
        """The Transformer's `apply` of the base's parameters with the adapters beside them."""
        scaled = jax.tree.map(
            lambda adapter: adapter._replace(b=adapter.b * self.scale),
            variables["params"],
            is_leaf=_is_adapter,
        )
        variables = {"params": variables["base"], COLLECTION: scaled}
        return self.model.apply(variables, *inputs, **options)


def init_adapters(rng: Array, params, rank: int, projections: tuple[str, ...]) -> dict[str, Any]:
    """Adapters of the chosen projections of (abstract) parameters in boxes, boxed as these are.

    They stand in a tree as the matrices do. A's entries are of variance 1 / inputs. Raises
    ConfigError for a projection that the model does not have.
    """
    found = list(_matrices(params))
    there = {projection for projection, *_ in found}
    for name in projections:
        if name not in there:
            known = ", ".join(each for each in PROJECTIONS if each in there)
            raise ConfigError(f"lora.projections={name} is not in this model, which has: {known}")
    tree: dict[str, Any] = {}
    for number, (projection, path, box) in enumerate(found):
        if projection in projections:
            place = tree
            for key in path[:-1]:
                place = place.setdefault(key, {})
            inputs = 2 if projection == "out" else 1
            place[path[-1]] = _adapter(jax.random.fold_in(rng, number), box, inputs, rank)
    return tree


def merge(base, adapters, scale: float):
    """The parameters with scale * A B added to each matrix that has an adapter."""
    return replace_subtree(base, merged(select_adapted(base, adapters), adapters, scale))


def merged(matrices, adapters, scale: float):
    """The matrices that adapters are of, a tree as these are, with what they add."""
    return jax.tree.map(partial(_add, scale), adapters, matrices, is_leaf=_is_adapter)


def select_adapted(tree, adapters):
    """What a tree like the parameters has in the places of adapters."""
    if _is_adapter(adapters):
        return tree
    return {name: select_adapted(tree[name], below) for name, below in adapters.items()}


def replace_subtree(base, part):
    """The parameters with some of them, a `part` of the tree, in the place of their own."""
    if not isinstance(part, dict):
        return part
    return {**base, **{name: replace_subtree(base[name], below) for name, below in part.items()}}


def _matrices(params) -> Iterator[tuple[str, tuple[str, ...], nn.LogicallyPartitioned]]:
    """Each matrix that may have an adapter: the projection it is, its path, its box."""
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
    first = names[0] == "layers"
    end = first + inputs  # of the axes that A has
    spread = math.prod(shape[first:end]) ** -0.5
    a = spread * jax.random.normal(rng, (*shape[:end], rank))
    b = jnp.zeros((*shape[:first], rank, *shape[end:]))
    return Adapter(
        nn.LogicallyPartitioned(a, (*names[:end], "rank")),
        nn.LogicallyPartitioned(b, (*names[:first], "rank", *names[end:])),
    )


def _add(scale: float, adapter: Adapter[Array], matrix: Array) -> Array:
    a, b = adapter
    stacked = tuple(range(a.ndim + b.ndim - 2 - matrix.ndim))
    dimensions = ((a.ndim - 1,), (len(stacked),)), (stacked, stacked)
    return matrix + scale * lax.dot_general(a, b, dimensions, precision=lax.Precision.HIGHEST)


def _is_adapter(x) -> bool:
    return isinstance(x, Adapter)
