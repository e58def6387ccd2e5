"""LoRA in a run: what is trained, and where the base parameters are stored.

A run's checkpoints hold its adapters. The model that these are of stands once in the run's folder,
as a checkpoint of its own, so that the run that it came from is not needed any more.
"""

from pathlib import Path
from typing import Any

import optax
from jax.sharding import Mesh

from experiments.config import Experiment
from model import Transformer
from model.family import Family
from model.lora import LoRAModel
from train.checkpoint import CheckpointManager
from train.checkpoint_spec import CheckpointError
from train.checksums import fingerprint
from train.multihost import broadcast_from_primary
from train.state import TrainState, abstract_params

BASE = "base"  # a run's folder has it there
_NEEDED = "the run's checkpoints are adapters of it; put it back as it was"


def trainable(experiment: Experiment, model: Transformer) -> Family:
    """What the optimizer sees: the model, or adapters of it."""
    lora = experiment.lora
    return LoRAModel(model, lora.rank, lora.scale, lora.names) if lora.rank else model


def write_base(workdir: Path, state: TrainState, meta: dict) -> None:
    """Keep a fresh state's base in the run's folder, whole or not at all.

    Raises CheckpointError.
    """
    alone = TrainState(state.step, state.base, optax.EmptyState(), state.rng)
    with CheckpointManager(workdir / BASE) as there:
        there.save(0, alone, meta)


def read_base(workdir: Path, model: Family, mesh: Mesh) -> Any:
    """What the run's adapters are of, laid out on the mesh; None of a run without adapters.

    Raises CheckpointError where it is missing or damaged.
    """
    if not isinstance(model, LoRAModel):
        return None
    if not broadcast_from_primary((workdir / BASE / "0").is_dir()):
        raise CheckpointError(f"{workdir / BASE} is missing: {_NEEDED}")
    with CheckpointManager(workdir / BASE) as there:
        try:
            return there.restore_params(0, abstract_params(model.model, mesh))
        except CheckpointError as error:
            raise CheckpointError(f"{error}: {_NEEDED}") from None


def base_signature(workdir: Path) -> str:
    """What tells the run's base from others, for its checkpoints to know it by."""
    return broadcast_from_primary(fingerprint(workdir / BASE / "0"))


def check_base(workdir: Path, experiment: Experiment, meta: dict) -> None:
    """Raise CheckpointError if a checkpoint with this `meta` has adapters of another base."""
    if experiment.lora.rank and meta.get("base") != base_signature(workdir):
        raise CheckpointError(f"{workdir / BASE} is another one: {_NEEDED}")
