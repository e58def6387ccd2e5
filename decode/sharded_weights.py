"""Sharded weights: devices hold shards and gather one layer at a time.

Devices along the mesh's fsdp and tensor axes share one set of weights. Each searches for rows of
its own, so all that they tell each other is weights, and whether any of them goes on.
A tree without a `Shard` is whole, and passes through everything here as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeGuard

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from decode.family import Generates
from decode.weights import Weights

_AXES = ("fsdp", "tensor")
# Of these the model's width is the last axis, of all others the first.
_TO_WIDTH = ("out", "embedding", "positions")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shard:
    """A device's part of an array that is split along `axis`."""

    array: Array
    axis: int = field(metadata=dict(static=True))

    @property
    def dtype(self):
        """The array's."""
        return self.array.dtype


def num_shards(mesh: Mesh) -> int:
    """Into how many parts a mesh splits weights; 1: every device has all of them."""
    return mesh.shape["fsdp"] * mesh.shape["tensor"]


def shard_weights(family: Generates, params, mesh: Mesh, precision: str = "float32") -> Any:
    """The parameters of a family's model as weights on the mesh, for a search on it.

    Arrays are split where training splits them, along the model's width; those that this does not
    divide along another axis, or else they are whole everywhere.
    """
    weights = family.pack(params, precision)
    if num_shards(mesh) > 1:
        weights = _split(weights, num_shards(mesh))
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(weights))
    return jax.lax.with_sharding_constraint(weights, places)


def abstract_weights(family: Generates, params, mesh: Mesh) -> Any:
    """What `shard_weights` makes of (abstract) parameters, as shapes and places."""
    weights = jax.eval_shape(partial(shard_weights, family, mesh=mesh), params)

    def abstract(x: Array | Shard, spec: PartitionSpec):
        place = NamedSharding(mesh, spec)
        lay = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)  # noqa: E731
        return jax.tree.map(lay, x)

    return jax.tree.map(abstract, weights, specs(weights), is_leaf=_is_part)


def _split(weights: Weights, count: int) -> Weights:
    def one(path, x: Array) -> Array | Shard:
        axes: Sequence[int] = range(x.ndim)
        if any(str(getattr(key, "key", "")).endswith(_TO_WIDTH) for key in path):
            axes = axes[::-1]
        axis = next((axis for axis in axes if x.shape[axis] % count == 0), None)
        return x if axis is None else Shard(x, axis)

    return jax.tree.map_with_path(one, weights)


def specs(weights: Weights):
    """How each array lies on the mesh, as a tree of PartitionSpecs."""

    def spec(x: Array | Shard) -> PartitionSpec:
        return PartitionSpec(*(None,) * x.axis, _AXES) if _is_part(x) else PartitionSpec()

    return jax.tree.map(spec, weights, is_leaf=_is_part)


def all_gather(tree, after: Array):
    """The tree with all its arrays whole, and `after`, what they are for, as it was.

    Before `after` is there nothing is gathered: or a compiler would do so once, before the search
    begins, and then hold all weights at once.
    """
    if not any(map(_is_part, jax.tree.leaves(tree, is_leaf=_is_part))):
        return tree, after
    tree, after = jax.lax.optimization_barrier((tree, after))
    return jax.tree.map(lambda x: _gather(x) if _is_part(x) else x, tree, is_leaf=_is_part), after


def sharded_lookup(table: Array | Shard, ids: Array) -> Array:
    """Rows of a table [V,D] for ids [B,T] -> [B,T,D].

    Of a split one every device looks up its columns for the ids of all: these are few, the table
    is large.
    """
    if not _is_part(table) or table.axis == 0:
        rows, ids = all_gather(table, ids)
        return rows[ids]
    everyones = jax.lax.all_gather(ids, _AXES, tiled=True)
    columns = table.array[everyones]
    return jax.lax.all_to_all(columns, _AXES, split_axis=0, concat_axis=ids.ndim, tiled=True)


def max_over_shards(count: Array) -> Array:
    """The largest of the counts of all devices that share weights: they go on together."""
    return jax.lax.pmax(count, _AXES)


def _is_part(x) -> TypeGuard[Shard]:
    return isinstance(x, Shard)


def _gather(part: Shard) -> Array:
    return jax.lax.all_gather(part.array, _AXES, axis=part.axis, tiled=True)
