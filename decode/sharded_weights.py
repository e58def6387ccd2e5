"""Sharded weights: devices hold shards and gather one layer at a time.

Devices along the mesh's fsdp and tensor axes share one set of weights. Each searches its own rows,
so they exchange only weights and the number of unfinished sentences.
A tree without a `Shard` is complete; all functions of this module return it unchanged.
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
# The model's width is the last axis of these arrays, and the first of all others.
_TO_WIDTH = ("out", "embedding", "positions")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shard:
    """A device's shard of an array that is split along `axis`."""

    array: Array
    axis: int = field(metadata=dict(static=True))

    @property
    def dtype(self):
        """The array's dtype."""
        return self.array.dtype


def num_shards(mesh: Mesh) -> int:
    """Number of shards of the weights on a mesh; 1: every device has all weights."""
    return mesh.shape["fsdp"] * mesh.shape["tensor"]


def shard_weights(family: Generates, params, mesh: Mesh, precision: str = "float32") -> Any:
    """Pack a model's parameters as weights on the mesh, for a search on it.

    Arrays are split as in training, along the model's width; arrays whose width is not divisible
    are split along another axis, or else replicated.
    """
    weights = family.pack(params, precision)
    if num_shards(mesh) > 1:
        weights = _split(weights, num_shards(mesh))
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(weights))
    return jax.lax.with_sharding_constraint(weights, shardings)


def abstract_weights(family: Generates, params, mesh: Mesh, precision: str = "float32") -> Any:
    """Shapes and shardings of `shard_weights` for (abstract) parameters."""
    pack = partial(shard_weights, family, mesh=mesh, precision=precision)
    weights = jax.eval_shape(pack, params)

    def abstract(x: Array | Shard, spec: PartitionSpec):
        sharding = NamedSharding(mesh, spec)
        struct = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
        return jax.tree.map(struct, x)

    return jax.tree.map(abstract, weights, specs(weights), is_leaf=_is_shard)


def _split(weights: Weights, count: int) -> Weights:
    def shard(path, x: Array) -> Array | Shard:
        axes: Sequence[int] = range(x.ndim)
        if any(str(getattr(key, "key", "")).endswith(_TO_WIDTH) for key in path):
            axes = axes[::-1]
        axis = next((axis for axis in axes if x.shape[axis] % count == 0), None)
        return x if axis is None else Shard(x, axis)

    return jax.tree.map_with_path(shard, weights)


def specs(weights: Weights):
    """PartitionSpecs of the weights on the mesh, as a tree."""

    def spec(x: Array | Shard) -> PartitionSpec:
        return PartitionSpec(*(None,) * x.axis, _AXES) if _is_shard(x) else PartitionSpec()

    return jax.tree.map(spec, weights, is_leaf=_is_shard)


def all_gather(tree, after: Array):
    """Gather all shards of a tree; returns it with `after`, its consumer's input, unchanged.

    Gathering waits for `after`: otherwise the compiler could hoist it out of the search loop and
    hold all weights at once.
    """
    if not any(map(_is_shard, jax.tree.leaves(tree, is_leaf=_is_shard))):
        return tree, after
    tree, after = jax.lax.optimization_barrier((tree, after))
    return jax.tree.map(lambda x: _gather(x) if _is_shard(x) else x, tree, is_leaf=_is_shard), after


def sharded_lookup(table: Array | Shard, ids: Array) -> Array:
    """Look up rows of a table [V,D] for ids [B,T] -> [B,T,D].

    If the table is sharded by columns, every device looks up its columns for all devices' ids: ids
    are few, the table is large.
    """
    if not _is_shard(table) or table.axis == 0:
        rows, ids = all_gather(table, ids)
        return rows[ids]
    all_ids = jax.lax.all_gather(ids, _AXES, tiled=True)
    columns = table.array[all_ids]
    return jax.lax.all_to_all(columns, _AXES, split_axis=0, concat_axis=ids.ndim, tiled=True)


def max_over_shards(count: Array) -> Array:
    """Maximum count over the devices that share weights: they run in lockstep."""
    return jax.lax.pmax(count, _AXES)


def _is_shard(x) -> TypeGuard[Shard]:
    return isinstance(x, Shard)


def _gather(shard: Shard) -> Array:
    return jax.lax.all_gather(shard.array, _AXES, axis=shard.axis, tiled=True)
