"""LoRA runs: the trainable adapters, and the stored base parameters.

A run's checkpoints contain only its adapters. The base model is stored once in the run's folder, as
a separate checkpoint, so that the source run is no longer needed.
"""

from pathlib import Path
from typing import Any

import optax
from jax.sharding import Mesh

from experiments.config import Experiment
from model.family import Family, Trainable
from model.lora import LoRAModel
from train.checkpoint import CheckpointManager
from train.checkpoint_spec import CheckpointError
from train.checksums import fingerprint
from train.multihost import broadcast_from_primary
from train.state import TrainState, abstract_params

BASE = "base"  # subfolder of the workdir
_HINT = "the run's checkpoints are adapters of it; put it back"


def trainable(experiment: Experiment, model: Family) -> Trainable:
    """The model that the optimizer trains: the model itself, or its adapters."""
    lora = experiment.lora
    return LoRAModel(model, lora.rank, lora.scale, lora.names) if lora.rank else model


def write_base(workdir: Path, state: TrainState, meta: dict) -> None:
    """Store the base of a fresh state in the workdir, atomically.

    Raises CheckpointError.
    """
    base_state = TrainState(state.step, state.base, optax.EmptyState(), state.rng)
    with CheckpointManager(workdir / BASE) as manager:
        manager.save(0, base_state, meta)


def read_base(workdir: Path, model: Trainable, mesh: Mesh) -> Any:
    """Base parameters of the run's adapters on the mesh; None for a run without adapters.

    Raises CheckpointError if they are missing or corrupt.
    """
    if not isinstance(model, LoRAModel):
        return None
    if not broadcast_from_primary((workdir / BASE / "0").is_dir()):
        raise CheckpointError(f"{workdir / BASE} is missing: {_HINT}")
    with CheckpointManager(workdir / BASE) as manager:
        try:
            return manager.restore_params(0, abstract_params(model.model, mesh))
        except CheckpointError as error:
            raise CheckpointError(f"{error}: {_HINT}") from None


def base_fingerprint(workdir: Path) -> str:
    """Fingerprint of the run's base, as stored in its checkpoints."""
    return broadcast_from_primary(fingerprint(workdir / BASE / "0"))


def check_base(workdir: Path, experiment: Experiment, meta: dict) -> None:
    """Raise CheckpointError if a checkpoint with this `meta` belongs to another base."""
    if experiment.lora.rank and meta.get("base") != base_fingerprint(workdir):
        raise CheckpointError(f"{workdir / BASE} is another one: {_HINT}")
