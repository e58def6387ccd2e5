"""What a run trains with."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import optax
from jax.sharding import Mesh

from data.tokenizer import Vocabulary
from experiments.config import Experiment
from experiments.preparation import Text
from model import Transformer
from model.sharding import batch_shards
from train.state import TrainState, abstract_state
from train.step import compile_train_step


class Training(NamedTuple):
    """What a run trains with, all of it checked."""

    experiment: Experiment
    workdir: Path
    vocabulary: Vocabulary
    text: Text
    model: Transformer
    tx: optax.GradientTransformation
    schedule: Callable[[int], float]
    mesh: Mesh

    @property
    def rows_multiple(self) -> int:
        """What mesh and accumulation want the number of a batch's rows to be a multiple of."""
        return batch_shards(self.mesh) * self.experiment.optimizer.accumulate

    def abstract_state(self) -> TrainState:
        """What is trained, as shapes and places."""
        ema = self.experiment.train.ema > 0
        return abstract_state(self.model, self.tx, self.mesh, ema=ema)

    def compile_step(self):
        """The train step that these settings mean."""
        c = self.experiment
        return compile_train_step(
            self.model,
            self.tx,
            self.mesh,
            smoothing=c.train.label_smoothing,
            accumulate=c.optimizer.accumulate,
            ema_decay=c.train.ema,
            chunked=c.train.chunked_loss,
        )
