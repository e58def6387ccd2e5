"""RunContext: experiment, data, model, optimizer and mesh of a run."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from data.vocabulary import Vocabulary
from experiments.config import Experiment
from experiments.lora import base_fingerprint, read_base, trainable
from experiments.task import Task, TaskData
from model.family import Family, Trainable
from model.sharding import num_batch_shards
from train.merge_adapters import make_merge_fn
from train.metrics import once, print_warning
from train.state import TrainState, abstract_params, abstract_state
from train.step import make_train_step
from train.watchdog import Watchdog


def no_watchdog() -> Watchdog:
    """Make a watchdog that does nothing, for a single-process run."""
    return Watchdog(Path(), 0, 0)


def never_stop(_step: int) -> str:
    """Never request a stop: for a run that cannot be interrupted."""
    return ""


@dataclass(frozen=True)
class RunContext:
    """Everything that a run trains with, validated by experiments/setup.py."""

    experiment: Experiment
    workdir: Path
    task: Task
    vocabulary: Vocabulary
    data: TaskData
    model: Family
    tx: optax.GradientTransformation
    learning_rate: Callable[[int], float]  # by step
    mesh: Mesh
    watchdog: Watchdog = field(default_factory=no_watchdog)
    stop_requested: Callable[[int], str] = never_stop  # step -> "", or the received signal
    # For all writers of the run: a file that cannot be written is reported once.
    warn: Callable[[str], None] = field(default_factory=lambda: once(print_warning))

    @property
    def row_multiple(self) -> int:
        """Batch rows must be divisible by this: batch shards times grad_accum_steps."""
        return num_batch_shards(self.mesh) * self.experiment.optimizer.grad_accum_steps

    @property
    def trainable(self) -> Trainable:
        """The model that the optimizer updates: the model itself, or LoRA adapters of it."""
        return trainable(self.experiment, self.model)

    def abstract_state(self) -> TrainState:
        """The train state as shapes and shardings."""
        ema = self.experiment.train.ema_decay > 0
        return abstract_state(self.trainable, self.tx, self.mesh, ema=ema)

    def restore_target(self) -> TrainState:
        """The state to restore a checkpoint into; it already contains the base of adapters."""
        base = read_base(self.workdir, self.trainable, self.mesh)
        return self.abstract_state()._replace(base=base)

    def weights(self, state: TrainState):
        """Evaluation parameters: the moving average if there is one, with adapters merged."""
        return make_merge_fn(self.trainable, self.mesh)(state.eval_params, state.base)

    def param_counts(self) -> dict[str, int]:
        """Parameter counts: of the model, and of the trained parameters."""
        count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
        trees = abstract_params(self.model, self.mesh), self.abstract_state().params
        return dict(zip(("num_params", "num_trainable_params"), map(count, trees), strict=True))

    def make_train_step(self):
        """The jitted train step of these settings, compiled at its first call."""
        c = self.experiment
        return make_train_step(
            self.trainable,
            self.tx,
            self.mesh,
            label_smoothing=c.train.label_smoothing,
            grad_accum_steps=c.optimizer.grad_accum_steps,
            ema_decay=c.train.ema_decay,
            chunked=c.train.chunked_loss,
        )

    def checkpoint_meta(self) -> dict:
        """Identity of the run, stored in each checkpoint: settings and checksums, for a resume."""
        meta = {"vocabulary": self.vocabulary.digest(), **self.data.digests}
        meta |= {"experiment": json.dumps(asdict(self.experiment))}
        return meta | (
            {"base": base_fingerprint(self.workdir)} if self.experiment.lora.rank else {}
        )
