"""Sharded weights: devices hold shards and gather one layer at a time.

Devices along the mesh's fsdp and tensor axes share one set of weights. Each searches for rows of
its own, so all that they tell each other is weights, and whether any of them goes on.
A tree without a `Part` is whole, and passes through everything here as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeGuard

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from decode.weights import Weights, pack
from model import TransformerConfig

_AXES = ("fsdp", "tensor")
# Of these the model's width is the last axis, of all others the first.
_TO_WIDTH = ("out", "embedding", "positions")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Part:
    """A device's part of an array that is split along `axis`."""

    array: Array
    axis: int = field(metadata=dict(static=True))

    @property
    def dtype(self):
        """The array's."""
        return self.array.dtype


def parts(mesh: Mesh) -> int:
    """Into how many parts a mesh splits weights; 1: every device has all of them."""
    return mesh.shape["fsdp"] * mesh.shape["tensor"]


def lay_out(config: TransformerConfig, params, mesh: Mesh, precision: str = "float32") -> Weights:
    """The parameters of `Transformer(config)` as weights on the mesh, for a search on it.

    Arrays are split where training splits them, along the model's width; those that this does not
    divide along another axis, or else they are whole everywhere.
    """
    weights = pack(config, params, precision)
    if parts(mesh) > 1:
        weights = _split(weights, parts(mesh))
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(weights))
    return jax.lax.with_sharding_constraint(weights, places)


def abstract_weights(config: TransformerConfig, params, mesh: Mesh) -> Weights:
    """What `lay_out` makes of (abstract) parameters, as shapes and places."""
    weights = jax.eval_shape(partial(lay_out, config, mesh=mesh), params)

    def abstract(x: Array | Part, spec: PartitionSpec):
        place = NamedSharding(mesh, spec)
        lay = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)  # noqa: E731
        return jax.tree.map(lay, x)

    return jax.tree.map(abstract, weights, specs(weights), is_leaf=_is_part)


def _split(weights: Weights, count: int) -> Weights:
    def one(path, x: Array) -> Array | Part:
        axes: Sequence[int] = range(x.ndim)
        if any(str(getattr(key, "key", "")).endswith(_TO_WIDTH) for key in path):
            axes = axes[::-1]
        axis = next((axis for axis in axes if x.shape[axis] % count == 0), None)
        return x if axis is None else Part(x, axis)

    return jax.tree.map_with_path(one, weights)


def specs(weights: Weights):
    """How each array lies on the mesh, as a tree of PartitionSpecs."""

    def spec(x: Array | Part) -> PartitionSpec:
        return PartitionSpec(*(None,) * x.axis, _AXES) if _is_part(x) else PartitionSpec()

    return jax.tree.map(spec, weights, is_leaf=_is_part)


def whole(tree, after: Array):
    """The tree with all its arrays whole, and `after`, what they are for, as it was.

    Before `after` is there nothing is gathered: or a compiler would do so once, before the search
    begins, and then hold all weights at once.
    """
    if not any(map(_is_part, jax.tree.leaves(tree, is_leaf=_is_part))):
        return tree, after
    tree, after = jax.lax.optimization_barrier((tree, after))
    return jax.tree.map(lambda x: _gather(x) if _is_part(x) else x, tree, is_leaf=_is_part), after


def look_up(table: Array | Part, ids: Array) -> Array:
    """Rows of a table [V,D] for ids [B,T] -> [B,T,D].

    Of a split one every device looks up its columns for the ids of all: these are few, the table
    is large.
    """
    if not _is_part(table) or table.axis == 0:
        rows, ids = whole(table, ids)
        return rows[ids]
    everyones = jax.lax.all_gather(ids, _AXES, tiled=True)
    columns = table.array[everyones]
    return jax.lax.all_to_all(columns, _AXES, split_axis=0, concat_axis=ids.ndim, tiled=True)


def most(count: Array) -> Array:
    """The largest of the counts of all devices that share weights: they go on together."""
    return jax.lax.pmax(count, _AXES)


def _is_part(x) -> TypeGuard[Part]:
    return isinstance(x, Part)


def _gather(part: Part) -> Array:
    return jax.lax.all_gather(part.array, _AXES, axis=part.axis, tiled=True)
