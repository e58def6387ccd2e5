"""The items of a checkpoint, and checks of their structure."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from data.regular_file import read_regular
from train.checkpoint_spec import CheckpointError
from train.checksums import verify_checksums, was_written
from train.orbax_errors import first_line
from train.state import TrainState

_OPTIONAL = ("ema",)  # stored depending on the run's settings; every checkpoint has the other items
_MAX_METRICS_BYTES = 1 << 20


def state_items(state: TrainState) -> dict[str, Any]:
    """Split a state into separately stored items: params, ema, rest. `base` is not stored.

    Decoding then reads only the parameters.
    """
    fields = state._asdict()
    params, ema, _ = (fields.pop(name) for name in ("params", "ema", "base"))
    rest = {name: value for name, value in fields.items() if value is not None}
    return {"params": params, "rest": rest} | ({} if ema is None else {"ema": ema})


def metrics(folder: Path, score: str) -> dict[str, float] | None:
    """Read a checkpoint's metrics; None if unreadable or without a finite number for `score`.

    Orbax writes them as Python's JSON, which may contain NaN and infinities.
    """
    try:
        verify_checksums(folder, ["metrics"])
        values = json.loads(read_regular(folder / "metrics" / "metrics", _MAX_METRICS_BYTES))
        value = values[score]
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        return values if usable and math.isfinite(value) else None
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def lost_metrics(folder: Path, score: str) -> bool:
    """Whether a checkpoint's metrics became unreadable, or its parameters are missing."""
    if metrics(folder, score) is not None:
        return False
    exists = {item: (folder / item).is_dir() for item in ("metrics", "params")}
    return exists["metrics"] or not exists["params"] or was_written(folder, "metrics")


def stored_param_shapes(checkpoint: Path) -> list[tuple[int, ...]]:
    """Read the shapes of a checkpoint's parameters, not the values. Raises CheckpointError."""
    try:
        check_folders(checkpoint, ["params"])
        stored = ocp.checkpointables_metadata(checkpoint.absolute()).metadata["params"]
        shapes = [leaf.shape for leaf in jax.tree.leaves(stored)]
    except Exception as error:  # Orbax raises many kinds of errors
        raise CheckpointError(f"{checkpoint} is corrupt: {first_line(error)}") from None
    if not shapes:
        raise CheckpointError(f"{checkpoint} is corrupt: it has no params")
    return shapes


def with_default_sharding(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The same leaf on the first device, if it has no sharding."""
    if leaf.sharding is not None:
        return leaf
    default = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=default)


def check_folders(checkpoint: Path, names: Iterable[str]) -> None:
    """Raise ValueError if an item that every checkpoint must have is missing."""
    for name in names:
        if name not in _OPTIONAL and not (checkpoint / name).is_dir():
            raise ValueError(f"{name} is missing")


def check_structure(checkpoint: str, item: str, stored: dict[str, Any], abstract: Any) -> None:
    """Raise CheckpointError if an item's shapes differ, ValueError if the item is corrupt."""
    if item not in stored and item in _OPTIONAL:
        raise CheckpointError(f"{checkpoint} has no {item}: it is from a run with other settings")
    if item not in stored:
        raise ValueError(f"{item} is missing")
    if stored[item] is None:
        raise ValueError(f"{item} is incomplete")
    actual, expected = _sizes(stored[item]), _sizes(abstract)
    for name in sorted(actual.keys() | expected.keys()):
        if actual.get(name) != expected.get(name):
            raise CheckpointError(
                f"{checkpoint} is from another model or optimizer: {item}/{name} is "
                f"{actual.get(name, 'absent')}, expected {expected.get(name, 'absent')}"
            )


def _sizes(tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    sizes = {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}
    sizes.pop("rng", None)  # stored as raw words, expected as a typed key
    return sizes
