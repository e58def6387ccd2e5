"""Sharding: one mesh, and one table from logical axis names to mesh axes.

| logical axis | of                             | mesh axis      |
|--------------|--------------------------------|----------------|
| batch        | every activation's first axis  | data and fsdp  |
| length, beam | activations                    | (replicated)   |
| vocab        | embedding tables, logits       | tensor         |
| embed        | parameters' model width        | fsdp           |
| heads        | queries, and attention outputs | tensor         |
| kv_heads     | keys and values                | tensor         |
| head_dim     | a head's width                 | (replicated)   |
| mlp          | feed-forward's hidden layer    | tensor         |
| layers       | stacked layers, when scanned   | (replicated)   |
| rank         | adapters (model/lora.py)       | (replicated)   |

The batch is split over `data` and `fsdp` together; `fsdp` also splits parameters and optimizer
state, `tensor` splits heads, hidden units and vocabulary. One device is a mesh of one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import flax.linen as nn
import jax
from jax import Array
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from model.config import ConfigError

AXES = ("data", "fsdp", "tensor")
RULES = (
    ("batch", ("data", "fsdp")),
    ("length", None),
    ("beam", None),
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("head_dim", None),
    ("mlp", "tensor"),
    ("layers", None),
    ("rank", None),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """Make a mesh of all devices with axes data, fsdp and tensor; a size of -1 is inferred.

    Raises ConfigError if the product of the sizes is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    settings = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
    free = [name for name, size in sizes.items() if size == -1]
    product = 1
    for size in sizes.values():
        if size != -1 and size < 1:
            raise ConfigError(f"{settings}: each size must be at least 1, or -1 to be inferred")
        product *= 1 if size == -1 else size
    if len(free) > 1:
        raise ConfigError(f"{settings}: only one size may be -1")
    if free and len(devices) % product == 0:
        sizes[free[0]] = len(devices) // product
    elif free or product != len(devices):
        divisors = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        raise ConfigError(
            f"{settings} does not fit {len(devices)} devices: sizes multiply to that number, "
            f"so each is one of {', '.join(map(str, divisors))}"
        )
    # An axis may be a part of one of a TPU slice's dimensions, such as fsdp=8 in 4x4x4.
    array = create_device_mesh(tuple(sizes.values()), list(devices), allow_split_physical_axes=True)
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * 3)


@contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """Context manager in which the model's `constrain` calls refer to this mesh."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def constrain(x: Array, *names: str | None) -> Array:
    """Constrain an activation's sharding on the mesh; no effect without a mesh.

    The first name is that of the first axis, the others are those of the last axes; axes between
    (the beam axis) are not sharded.
    """
    unnamed = (None,) * (x.ndim - len(names))
    return nn.with_logical_constraint(x, (names[0], *unnamed, *names[1:]))


def param_shardings(abstract, mesh: Mesh):
    """NamedShardings of a tree of abstract parameters boxed with logical axis names.

    Raises ConfigError if a mesh axis does not divide the parameter axis that it splits.
    """
    boxed = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
    for path, box in jax.tree.leaves_with_path(abstract, is_leaf=boxed):
        if boxed(box):
            _check_divides(jax.tree_util.keystr(path, simple=True, separator="/"), box, mesh)
    specs = nn.get_partition_spec(abstract)
    return nn.logical_to_mesh_sharding(specs, mesh, RULES)


def _check_divides(path: str, box: nn.LogicallyPartitioned, mesh: Mesh) -> None:
    for name, size in zip(box.names, box.value.shape, strict=True):
        axis = dict(RULES).get(name) if name else None
        if axis and size % mesh.shape[axis]:
            fitting = [n for n in range(1, mesh.size + 1) if not (size % n or mesh.size % n)]
            raise ConfigError(
                f"mesh.{axis}={mesh.shape[axis]} does not divide the {size} {name} of {path}: "
                f"on {mesh.size} devices it may be {', '.join(map(str, fitting))}"
            )


def num_batch_shards(mesh: Mesh) -> int:
    """The number of shards of a batch, which must divide its number of rows."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch's rows on the mesh."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def local_batch_shards(mesh: Mesh) -> tuple[int, ...]:
    """Indices of the `num_batch_shards` batch shards that this process's devices hold, ascending.

    If a tensor axis spans processes, several of them hold the same shards.
    """
    num_shards = num_batch_shards(mesh)
    slices = batch_sharding(mesh).addressable_devices_indices_map((num_shards,)).values()
    return tuple(sorted({index[0].indices(num_shards)[0] for index in slices if index}))


def make_global_batch(batch, mesh: Mesh):
    """Make the global batch from arrays [rows,...] of each process's `local_batch_shards`.

    With one process the arrays are returned unchanged.
    """
    if jax.process_count() == 1:
        return batch
    local_shards, sharding = local_batch_shards(mesh), batch_sharding(mesh)

    def global_array(x):
        rows_per_shard = len(x) // len(local_shards)

        def local_shard(index):
            start = local_shards.index((index[0].start or 0) // rows_per_shard) * rows_per_shard
            return x[start : start + rows_per_shard]

        shape = (rows_per_shard * num_batch_shards(mesh), *x.shape[1:])
        return jax.make_array_from_callback(shape, sharding, local_shard)

    return jax.tree.map(global_array, batch)


def put_on_mesh(tree, sharding: NamedSharding):
    """Put arrays on the mesh; every process has a full copy of them."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    put = lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__)  # noqa: E731
    return jax.tree.map(put, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding with a full copy of the array on every device."""
    return NamedSharding(mesh, PartitionSpec())
