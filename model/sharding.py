"""Sharding: one mesh, and one table from logical axis names to mesh axes.

| logical axis | of                             | mesh axis      |
|--------------|--------------------------------|----------------|
| batch        | every activation's first axis  | data and fsdp  |
| length, beam | activations                    | (whole)        |
| vocab        | embedding tables, logits       | tensor         |
| embed        | parameters' model width        | fsdp           |
| heads        | queries, and attention outputs | tensor         |
| kv_heads     | keys and values                | tensor         |
| head_dim     | a head's width                 | (whole)        |
| mlp          | feed-forward's hidden layer    | tensor         |
| layers       | stacked layers, when scanned   | (whole)        |
| rank         | adapters (model/lora.py)       | (whole)        |

The batch is split over `data` and `fsdp` together; `fsdp` also splits parameters and optimizer
state, `tensor` splits heads, hidden units and vocabulary. One device is a mesh of one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import flax.linen as nn
import jax
from jax import Array
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
    """A mesh of all devices with the axes data, fsdp and tensor; one size may be -1: the rest.

    Raises ConfigError where the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    asked = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
    free = [name for name, size in sizes.items() if size == -1]
    known = 1
    for size in sizes.values():
        if size != -1 and size < 1:
            raise ConfigError(f"{asked}: a size is at least 1, or -1 for what is left")
        known *= 1 if size == -1 else size
    if len(free) > 1:
        raise ConfigError(f"{asked}: only one size may be -1")
    if free and len(devices) % known == 0:
        sizes[free[0]] = len(devices) // known
    elif free or known != len(devices):
        divisors = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        raise ConfigError(
            f"{asked} does not fit {len(devices)} devices: sizes multiply to that number, "
            f"so each is one of {', '.join(map(str, divisors))}"
        )
    return jax.make_mesh(
        tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
    )


@contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """Within it, the model's `constrain` calls speak of this mesh."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def constrain(x: Array, *names: str | None) -> Array:
    """Tell the compiler how an activation lies on the mesh; nothing where no mesh is in use.

    The first name is the first axis's, the others are the last axes'; axes between (the beam's)
    are whole.
    """
    between = (None,) * (x.ndim - len(names))
    return nn.with_logical_constraint(x, (names[0], *between, *names[1:]))


def param_shardings(abstract, mesh: Mesh):
    """A tree of abstract parameters in their logical boxes -> the tree of their NamedShardings.

    Raises ConfigError where a mesh axis does not divide what it would split.
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
    """How many parts a batch's rows lie in: its number of rows is a multiple of that."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a batch's rows lie on the mesh."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def local_batch_shards(mesh: Mesh) -> tuple[int, ...]:
    """Which of the `num_batch_shards` parts this process's devices hold, ascending.

    Where a tensor axis spans processes, several of them hold the same.
    """
    parts = num_batch_shards(mesh)
    slices = batch_sharding(mesh).addressable_devices_indices_map((parts,)).values()
    return tuple(sorted({index[0].indices(parts)[0] for index in slices if index}))


def make_global_batch(batch, mesh: Mesh):
    """Arrays [rows,...] of this process's `local_batch_shards` of a batch -> the batch on the mesh.

    With one process they are the batch.
    """
    if jax.process_count() == 1:
        return batch
    own, sharding = local_batch_shards(mesh), batch_sharding(mesh)

    def whole(x):
        each = len(x) // len(own)

        def part(index):
            at = own.index((index[0].start or 0) // each) * each
            return x[at : at + each]

        shape = (each * num_batch_shards(mesh), *x.shape[1:])
        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(whole, batch)


def put_on_mesh(tree, sharding: NamedSharding):
    """Arrays that every process has whole -> the same on the mesh."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    part = lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__)  # noqa: E731
    return jax.tree.map(part, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
