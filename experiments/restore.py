"""Restore a run: its latest checkpoint, the state it begins with, or one to roll back to."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from data.batch_schedule import BatchSchedule
from experiments import workdir as folders
from experiments.console import log
from experiments.lora import check_base, write_base
from experiments.resume_rules import resume_line
from experiments.run_context import RunContext
from model import ConfigError
from train.checkpoint import CheckpointManager
from train.multihost import broadcast_from_primary
from train.state import TrainState, create_state


def restore_or_init(run: RunContext, checkpoints: CheckpointManager) -> tuple[TrainState, dict]:
    """The latest intact state and its checkpoint's meta; without checkpoints a fresh state and {}.

    Raises ConfigError or CheckpointError where the folder's vocabulary, text or base is not that of
    the checkpoint.
    """
    if not broadcast_from_primary(checkpoints.steps()):
        return init_state(run), {}
    state, meta = _restore_latest(run, checkpoints)
    folders.check_vocabulary(run.workdir, run.vocabulary, meta)
    folders.check_text(run.workdir, run.data.digests, meta)
    check_base(run.workdir, run.experiment, meta)
    previous = folders.settings_of(meta) or run.previous or run.experiment
    log(resume_line(previous, run.experiment, int(state.step)))
    return state, meta


def roll_back(
    run: RunContext, checkpoints: CheckpointManager, before_step: int, tried: set[int]
) -> tuple[TrainState, dict]:
    """Restore the newest intact checkpoint from before `before_step` that was not `tried` yet.

    Adds its step to `tried`, and deletes later checkpoints. If all were tried, the oldest one is
    used again, with the data reshuffled once more. If there is none, training starts over. Raises
    CorruptCheckpointError if no checkpoint is intact.
    """
    checkpoints.wait()
    steps = [step for step in broadcast_from_primary(checkpoints.steps()) if step < before_step]
    untried = [step for step in steps if step not in tried]
    if steps:
        state, meta = _restore_latest(run, checkpoints, untried or steps[:1])
    else:
        state, meta = init_state(run), {}
    step = int(state.step)
    tried.add(step)
    checkpoints.delete_after(step)
    return state, meta


def _restore_latest(
    run: RunContext, checkpoints: CheckpointManager, steps: Sequence[int] | None = None
) -> tuple[TrainState, dict]:
    """The latest intact state and its meta; reports what is wrong with newer ones."""
    state, meta, corrupt = checkpoints.restore_latest_intact(run.restore_target(), steps)
    for line in corrupt:
        log(f"warning: {line}")
    return state, meta


def init_state(run: RunContext) -> TrainState:
    """The state at step 0: fresh parameters, or those of the run that `init_from` names.

    Where adapters are trained, these are fresh, and the other parameters are written into the run's
    folder.
    """
    c = run.experiment
    key = jax.random.key(c.train.seed)
    state = create_state(run.trainable, run.tx, key, run.mesh, ema=c.train.ema_decay > 0)
    if not c.init_from:
        return state
    source = Path(c.init_from)
    with CheckpointManager(source / "checkpoints") as others:
        folders.warn_unranked(others, "best")
        step = broadcast_from_primary(others.resolve("best").steps[-1])
    keeps_average = state.ema is not None
    if not c.lora.rank:  # otherwise two models would be in memory at once
        state = state._replace(params=None, ema=None)
    loaded = folders.load(source, str(step), run.mesh)
    if loaded.vocabulary.digest() != run.vocabulary.digest():
        raise ConfigError(f"--config.init_from={source} has changed its vocabulary meanwhile")
    log(f"beginning with the weights of {source}, step {step}")
    if c.lora.rank:
        state = state._replace(base=loaded.params)
        write_base(run.workdir, state, {"of": str(source), "step": step})
        return state
    # The average begins equal, but in memory of its own: a step donates its state.
    ema = jax.tree.map(jnp.copy, loaded.params) if keeps_average else None
    return state._replace(params=loaded.params, ema=ema)


def schedule_offset(schedule: BatchSchedule, step: int, meta: dict) -> int:
    """How many batches the schedule is ahead of the steps, in a run whose batches have changed.

    Where they differ from those of the checkpoint with this `meta`, training continues at the same
    share of the same epoch. The rest of that epoch is in the order of the new batches, and so may
    repeat some of its pairs and leave out others; each later epoch has every pair once. Steps, and
    with them the learning rate, continue as they were.
    """
    offset = meta.get("batch_offset", 0)
    epoch = meta.get("batches_per_epoch", schedule.batches_per_epoch)
    if epoch == schedule.batches_per_epoch:
        return offset
    batch = round((step + offset) * schedule.batches_per_epoch / epoch)
    log(f"batches have changed: {epoch} an epoch until now; continuing after {batch} of the new")
    return batch - step
