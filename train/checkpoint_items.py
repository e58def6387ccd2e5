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

_OPTIONAL = ("ema",)  # whether a run has it depends on its settings; the other parts all have
_MAX_METRICS_BYTES = 1 << 20


def parts(state: TrainState) -> dict[str, Any]:
    """What is stored apart, so that decoding can read it without the rest; of `base` nothing is."""
    fields = state._asdict()
    params, ema, _ = (fields.pop(name) for name in ("params", "ema", "base"))
    rest = {name: value for name, value in fields.items() if value is not None}
    return {"params": params, "rest": rest} | ({} if ema is None else {"ema": ema})


def metrics(folder: Path, score: str) -> dict[str, float] | None:
    """What a checkpoint was measured by, if that can be read and has a finite number for `score`.

    Orbax writes it as Python's JSON, which may hold NaN and infinities.
    """
    try:
        verify_checksums(folder, ["metrics"])
        found = json.loads(read_regular(folder / "metrics" / "metrics", _MAX_METRICS_BYTES))
        value = found[score]
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        return found if usable and math.isfinite(value) else None
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def lost_metrics(folder: Path, score: str) -> bool:
    """Whether a checkpoint was saved with metrics that cannot be read, or lacks its parameters."""
    if metrics(folder, score) is not None:
        return False
    there = {part: (folder / part).is_dir() for part in ("metrics", "params")}
    return there["metrics"] or not there["params"] or was_written(folder, "metrics")


def param_shapes(checkpoint: Path) -> list[tuple[int, ...]]:
    """The shapes of a checkpoint's parameters, without their values; raises CheckpointError."""
    try:
        check_folders(checkpoint, ["params"])
        found = ocp.checkpointables_metadata(checkpoint.absolute()).metadata["params"]
        shapes = [leaf.shape for leaf in jax.tree.leaves(found)]
    except Exception as error:  # Orbax knows many kinds
        raise CheckpointError(f"{checkpoint} is damaged: {first_line(error)}") from None
    if not shapes:
        raise CheckpointError(f"{checkpoint} is damaged: it holds no params")
    return shapes


def with_default_sharding(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The same leaf on some device, if it has no place yet."""
    if leaf.sharding is not None:
        return leaf
    home = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=home)


def check_folders(checkpoint: Path, names: Iterable[str]) -> None:
    """Raises ValueError where a part that every checkpoint has is not there at all."""
    for name in names:
        if name not in _OPTIONAL and not (checkpoint / name).is_dir():
            raise ValueError(f"{name} is missing")


def check(where: str, part: str, stored: dict[str, Any], wanted: Any) -> None:
    """Raises CheckpointError where a part differs in shape, else ValueError where it is torn."""
    if part not in stored and part in _OPTIONAL:
        raise CheckpointError(f"{where} holds no {part}: it is of a run with other settings")
    if part not in stored:
        raise ValueError(f"{part} is missing")
    if stored[part] is None:
        raise ValueError(f"{part} is torn")
    there, here = _sizes(stored[part]), _sizes(wanted)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise CheckpointError(
                f"{where} is of another model or optimizer: {part}/{name} is "
                f"{there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
            )


def _sizes(tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    sizes = {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}
    sizes.pop("rng", None)  # a key there, its words here
    return sizes
