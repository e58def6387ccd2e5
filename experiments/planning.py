"""Prepare a run before anything is written: text, batches, train step."""

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from data.pairs import SPLITS, Corpus
from data.vocabulary import Vocabulary
from experiments import workdir as folders
from experiments.config import Experiment
from experiments.lora import learner
from experiments.preparation import (
    check_sizes,
    find_vocabulary,
    inherit_model_config,
    open_split,
    read_text,
    resolve,
)
from experiments.training import RunContext
from experiments.unused_settings import report_unused_settings
from model import ConfigError, Transformer
from model.sharding import make_mesh
from train.multihost import allgather, run_on_all
from train.optimizer import make_optimizer, make_schedule
from train.state import abstract_state


def prepare(
    experiment: Experiment,
    workdir: Path,
    allow_batch_change: bool = False,
    moved: Callable[[], None] = lambda: None,
    given: Collection[str] = (),
) -> RunContext:
    """What the experiment trains with, or goes on training with in `workdir`; writes nothing.

    `moved` hears of each piece of text that was read, and `given` are the names of the settings
    that flags set ("model.d_ff"): each must have an effect. Raises ConfigError, DataError for
    settings and input that cannot be, in all processes.
    """
    old = find_previous(experiment, workdir)
    opened = run_on_all(lambda: open_data(experiment, old, given))
    vocabulary = find_vocabulary(opened.experiment, workdir, opened.splits["train"])
    t = run_on_all(lambda: plan(workdir, opened, vocabulary, allow_batch_change, moved))
    _check_alike(t)
    return t


class RunInputs(NamedTuple):
    """What there is before a vocabulary: settings, a mesh, the folder's earlier ones, sentences."""

    experiment: Experiment
    mesh: Mesh
    old: Experiment | None
    splits: dict[str, Corpus]
    asked: Experiment  # as it was before it took anything over
    given: Collection[str]


def find_previous(experiment: Experiment, workdir: Path) -> Experiment | None:
    """Check the folder; the settings that its newest checkpoint was saved with, None without one.

    These need not be those of config.json: a start that saves no checkpoint writes them too. All
    processes call it together. Raises ConfigError.
    """

    def read() -> Experiment | None:
        check_sizes(experiment)
        folders.check_folder(workdir)
        return folders.read_previous(workdir)

    old = run_on_all(read)
    return old and (folders.read_checkpoint_settings(workdir) or old)


def open_data(
    experiment: Experiment, old: Experiment | None, given: Collection[str] = ()
) -> RunInputs:
    """Check the settings, and open the text. Raises ConfigError, DataError.

    `old` is the experiment that is resumed, if one is.
    """
    mesh = make_mesh(*(getattr(experiment.mesh, axis) for axis in ("data", "fsdp", "tensor")))
    taken = inherit_model_config(experiment, old, given)
    schedule_and_optimizer(taken)
    splits = {split: open_split(taken, split) for split in SPLITS}
    return RunInputs(taken, mesh, old, splits, experiment, given)


def plan(
    workdir: Path,
    opened: RunInputs,
    vocabulary: Vocabulary,
    allow_batch_change: bool = False,
    moved: Callable[[], None] = lambda: None,
) -> RunContext:
    """Tokenise the text and plan its batches. Raises ConfigError, DataError."""
    c = resolve(opened.experiment, vocabulary, opened.old)
    report_unused_settings(opened.asked, c, opened.given)
    folders.check_same_run(workdir, c, allow_batch_change, opened.old)
    model = Transformer(c.model)
    schedule, tx = schedule_and_optimizer(c)
    # Raises where the mesh does not divide the sizes, or adapters have no place.
    abstract_state(learner(c, model), tx, opened.mesh)
    text = read_text(c, opened.splits, vocabulary, moved)
    return RunContext(c, workdir, vocabulary, text, model, tx, schedule, opened.mesh, opened.old)


def _check_alike(t: RunContext) -> None:
    """Raise ConfigError where processes were not started alike, or do not read the same text."""
    if jax.process_count() == 1:
        return
    own = {"the config": repr(t.experiment), "--workdir": str(t.workdir)}
    own |= {f"the {name.replace('_', ' ')}": digest for name, digest in t.text.digests.items()}
    first, *others = allgather(own)
    for number, other in enumerate(others, 1):
        for name, value in first.items():
            if other[name] != value:
                raise ConfigError(f"{name} is not the same in process {number} as in process 0")


def schedule_and_optimizer(experiment: Experiment):
    """The learning rate's course and the optimizer that follows it; raises ConfigError."""
    o = experiment.optimizer
    if o.decay_steps and experiment.schedule_end is None:
        raise ConfigError(
            f"config.optimizer.decay_steps={o.decay_steps} has no effect with "
            f"config.optimizer.schedule={o.schedule}: leave it out, or choose cosine or linear"
        )
    if not o.decay_steps and (experiment.schedule_end or math.inf) <= max(o.warmup_steps, 1):
        raise ConfigError(
            f"config.train.num_steps={experiment.train.num_steps} must be above "
            f"config.optimizer.warmup_steps={o.warmup_steps}: config.optimizer.schedule="
            f"{o.schedule} ends there, unless config.optimizer.decay_steps is set"
        )
    schedule = make_schedule(
        o.schedule,
        learning_rate=o.learning_rate,
        warmup_steps=o.warmup_steps,
        d_model=experiment.model.d_model,
        decay_steps=experiment.schedule_end,
    )
    return schedule, make_optimizer(
        o.name,
        schedule,
        b1=o.b1,
        b2=o.b2,
        epsilon=o.epsilon,
        weight_decay=o.weight_decay,
        clip_norm=o.clip_norm,
        mu_dtype=o.mu_dtype,
    )
