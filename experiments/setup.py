"""Set up a run without writing files: settings, data, model, optimizer, mesh."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from data.vocabulary import Vocabulary
from experiments import workdir as folders
from experiments.config import Experiment
from experiments.console import log
from experiments.lora import trainable
from experiments.resolve import check_sizes, find_vocabulary, inherit_model_config, resolve
from experiments.run_context import RunContext, never_stop, no_watchdog
from experiments.task import Task
from experiments.translation_task import TranslationTask
from experiments.unused_settings import report_unused_settings
from model import ConfigError, TransformerConfig
from model.attention_kernels import choose_kernel
from model.families import build_model
from model.platform import device_platform
from model.sharding import make_mesh
from train.multihost import PreemptedError, allgather, run_on_all
from train.optimizer import make_optimizer, make_schedule
from train.state import abstract_state
from train.watchdog import Watchdog


def set_up(
    experiment: Experiment,
    workdir: Path,
    allow_batch_change: bool = False,
    from_flags: Collection[str] = (),
    task: Task | None = None,
    watchdog: Watchdog | None = None,
    stop_requested: Callable[[int], str] = never_stop,
) -> RunContext:
    """Check settings and data, and build everything that the run trains with; writes nothing.

    `from_flags` are the names of the settings that flags set ("model.d_ff"): each must have an
    effect. Raises ConfigError or DataError in all processes for invalid settings and data, and
    PreemptedError if `stop_requested(0)` names a signal while text is read.
    """
    task = TranslationTask() if task is None else task
    watchdog = watchdog or no_watchdog()
    settings = read_settings(experiment, workdir, from_flags)
    splits = run_on_all(lambda: task.open_splits(settings.experiment))
    vocabulary = find_vocabulary(settings.experiment, workdir, splits["train"])

    def on_progress() -> None:
        watchdog.heartbeat()
        if reason := stop_requested(0):
            raise PreemptedError(reason)

    run = run_on_all(
        lambda: build(workdir, settings, task, splits, vocabulary, allow_batch_change, on_progress)
    )
    _check_processes_agree(run)
    return replace(run, watchdog=watchdog, stop_requested=stop_requested)


class Settings(NamedTuple):
    """The settings of a run before its vocabulary is known."""

    experiment: Experiment  # with the settings inherited from `init_from`
    requested: Experiment  # from config and flags, before `init_from`
    from_flags: Collection[str]
    previous: Experiment | None  # the settings of the newest checkpoint
    mesh: Mesh


def read_settings(
    experiment: Experiment, workdir: Path, from_flags: Collection[str] = ()
) -> Settings:
    """Check the settings and the folder. All processes call it together. Raises ConfigError.

    A resumed run is compared with the settings in its newest checkpoint, not with config.json,
    which a start without a later checkpoint has also rewritten.
    """

    def check_and_read() -> Experiment | None:
        check_sizes(experiment)
        folders.check_run_folder(workdir)
        return folders.read_previous(workdir)

    def build_settings(previous: Experiment | None) -> Settings:
        mesh = make_mesh(*(getattr(experiment.mesh, axis) for axis in ("data", "fsdp", "tensor")))
        inherited = inherit_model_config(experiment, previous, from_flags)
        schedule_and_optimizer(inherited)  # raises for invalid settings
        return Settings(inherited, experiment, from_flags, previous, mesh)

    previous = run_on_all(check_and_read)
    if previous is not None:
        previous = folders.read_checkpoint_settings(workdir) or previous
    return run_on_all(lambda: build_settings(previous))


def build(
    workdir: Path,
    settings: Settings,
    task: Task,
    splits: Mapping[str, Any],
    vocabulary: Vocabulary,
    allow_batch_change: bool = False,
    on_progress: Callable[[], None] = lambda: None,
) -> RunContext:
    """Tokenize the splits, schedule the batches, build and check. Raises ConfigError, DataError."""
    c = resolve(settings.experiment, vocabulary)
    report_unused_settings(settings.requested, c, settings.from_flags)
    folders.check_same_run(workdir, c, allow_batch_change, settings.previous)
    model = build_model(c.model)
    _report_kernel(c.model, settings.mesh)
    learning_rate, tx = schedule_and_optimizer(c)
    # Raises if the mesh does not divide the sizes, or if a LoRA projection does not exist.
    abstract_state(trainable(c, model), tx, settings.mesh)
    data = task.read(c, splits, vocabulary, on_progress)
    run = RunContext(c, workdir, task, vocabulary, data, model, tx, learning_rate, settings.mesh)
    task.check(run)
    return run


def _report_kernel(model: TransformerConfig, mesh: Mesh) -> None:
    """Log why the requested attention kernel is not used, if it is not."""
    _, reason = choose_kernel(model, device_platform(mesh.devices.flat[0]))
    if reason:
        log(f"model.attention_kernel={model.attention_kernel}: plain attention is used: {reason}")


def _check_processes_agree(run: RunContext) -> None:
    """Raise ConfigError if processes were started with different settings or text."""
    if jax.process_count() == 1:
        return
    values = {"the config": repr(run.experiment), "--workdir": str(run.workdir)}
    values |= {f"the {name.replace('_', ' ')}": digest for name, digest in run.data.digests.items()}
    primary, *peers = allgather(values)
    for number, peer in enumerate(peers, 1):
        for name, value in primary.items():
            if peer[name] != value:
                raise ConfigError(f"{name} is not the same in process {number} as in process 0")


def schedule_and_optimizer(experiment: Experiment):
    """The learning-rate schedule and the optimizer that uses it; raises ConfigError."""
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
