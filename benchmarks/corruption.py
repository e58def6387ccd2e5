"""Corrupt checkpoint files, and compare two runs."""

import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TIMINGS = {"elapsed_seconds", "tokens_per_second"}


def cut(path: Path) -> None:
    """Truncate a file to its first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


CORRUPTIONS = {"cut in half": cut, "with one bit flipped": flip, "removed": os.remove}


def events(folder: Path) -> list[dict]:
    """The logged events of a run, without timings."""
    from train.metrics import read_metrics

    return [{k: v for k, v in e.items() if k not in TIMINGS} for e in read_metrics(folder)]


def _abstract(run: Path, sizes: tuple[int, int, int] = (1, 1, 1)):
    """The abstract train state of `run`, on as many of the first devices as the mesh has."""
    import jax

    from experiments.lora import trainable
    from experiments.setup import schedule_and_optimizer
    from experiments.workdir import read_config
    from model import Transformer
    from model.sharding import make_mesh
    from train.state import abstract_state

    c = read_config(run)
    mesh = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    model = trainable(c, Transformer(c.model))
    return abstract_state(model, schedule_and_optimizer(c)[1], mesh)._replace(base=None)


def restore_latest(checkpoints: Path, run: Path) -> tuple[int, list[str]]:
    """The step that a run would resume from, and its messages about newer checkpoints."""
    from train.checkpoint import CheckpointManager

    with CheckpointManager(checkpoints) as manager:
        state, _, messages = manager.restore_latest_intact(_abstract(run))
        return int(state.step), messages


def arrays(
    checkpoints: Path, step: int | str, run: Path, mesh: tuple[int, int, int] = (1, 1, 1)
) -> list:
    """All arrays of a checkpoint, restored on a mesh of these sizes."""
    import jax
    import numpy as np

    from train.checkpoint import CheckpointManager

    with CheckpointManager(checkpoints) as manager:
        state = manager.restore(step, _abstract(run, mesh))
    state = state._replace(rng=jax.random.key_data(state.rng))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def bitwise_equal(left: list, right: list) -> bool:
    """Whether two lists of arrays are bitwise equal."""
    return all(x.tobytes() == y.tobytes() for x, y in zip(left, right, strict=True))


def equal_checkpoints(left: Path, step: int, right: Path, run: Path) -> bool:
    """Whether the checkpoints of a step in two folders are bitwise equal."""
    return bitwise_equal(*(arrays(folder, step, run) for folder in (left, right)))


@contextmanager
def mounted(folder: Path, option: str) -> Iterator[Callable[[str], object]]:
    """Mount a small tmpfs at `folder`; raises OSError if that is not possible."""
    folder.mkdir()
    size = option if option.startswith("size") else "size=50m"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        raise OSError("cannot mount a tmpfs, which needs root")
    try:
        yield lambda mode: subprocess.run(
            ["mount", "-o", f"remount,{mode}", str(folder)], check=True, capture_output=True
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
