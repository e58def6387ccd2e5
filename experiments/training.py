"""RunContext: what a run trains with."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from data.vocabulary import Vocabulary
from experiments.config import Experiment
from experiments.lora import learner, read_base
from experiments.preparation import Text
from model import Transformer
from model.sharding import num_batch_shards
from train.merge_adapters import make_merge_fn
from train.state import Model, TrainState, abstract_params, abstract_state
from train.step import make_train_step


class RunContext(NamedTuple):
    """What a run trains with, all of it checked."""

    experiment: Experiment
    workdir: Path
    vocabulary: Vocabulary
    text: Text
    model: Transformer
    tx: optax.GradientTransformation
    schedule: Callable[[int], float]
    mesh: Mesh
    previous: Experiment | None = None  # that the checkpoints in the folder are of, to be resumed

    @property
    def rows_multiple(self) -> int:
        """What mesh and accumulation want the number of a batch's rows to be a multiple of."""
        return num_batch_shards(self.mesh) * self.experiment.optimizer.accumulate

    @property
    def learner(self) -> Model:
        """What the optimizer sees: the model, or adapters of it."""
        return learner(self.experiment, self.model)

    def abstract_state(self) -> TrainState:
        """What is trained, as shapes and places."""
        ema = self.experiment.train.ema > 0
        return abstract_state(self.learner, self.tx, self.mesh, ema=ema)

    def restore_target(self) -> TrainState:
        """The same, to be filled by a checkpoint: what these do not store is there already."""
        base = read_base(self.workdir, self.learner, self.mesh)
        return self.abstract_state()._replace(base=base)

    def weights(self, state: TrainState):
        """The model's parameters as a state has them, to evaluate and translate with."""
        return make_merge_fn(self.learner, self.mesh)(state.weights, state.base)

    def sizes(self) -> dict[str, int]:
        """How many parameters the model has, and how many of them, or adapters, are trained."""
        count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
        trees = abstract_params(self.model, self.mesh), self.abstract_state().params
        return dict(zip(("params", "trainable"), map(count, trees), strict=True))

    def compile_step(self):
        """The train step that these settings mean."""
        c = self.experiment
        return make_train_step(
            self.learner,
            self.tx,
            self.mesh,
            smoothing=c.train.label_smoothing,
            accumulate=c.optimizer.accumulate,
            ema_decay=c.train.ema,
            chunked=c.train.chunked_loss,
        )
