"""Restore a run: its latest checkpoint, its initial state, or a checkpoint to roll back to."""

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
    """Restore the latest intact state and its checkpoint's meta, or return a fresh state and {}.

    Raises ConfigError or CheckpointError if the vocabulary, text or base differs from that of the
    checkpoint.
    """
    if not broadcast_from_primary(checkpoints.steps()):
        return init_state(run), {}
    state, meta = _restore_latest(run, checkpoints)
    folders.check_vocabulary(run.workdir, run.vocabulary, meta)
    folders.check_text(run.workdir, run.data.digests, meta)
    check_base(run.workdir, run.experiment, meta)
    log(resume_line(folders.stored_experiment(meta), run.experiment, int(state.step)))
    return state, meta


def roll_back(
    run: RunContext, checkpoints: CheckpointManager, before_step: int, tried_steps: set[int]
) -> tuple[TrainState, dict]:
    """Restore the newest intact checkpoint from before `before_step` that is not in `tried_steps`.

    Adds its step to `tried_steps` and deletes later checkpoints. If all steps were tried, the
    oldest one is used again, with the data reshuffled once more. Without checkpoints, training
    starts over. Raises CorruptCheckpointError if no checkpoint is intact.
    """
    checkpoints.wait()
    steps = [step for step in broadcast_from_primary(checkpoints.steps()) if step < before_step]
    untried = [step for step in steps if step not in tried_steps]
    if steps:
        state, meta = _restore_latest(run, checkpoints, untried or steps[:1])
    else:
        state, meta = init_state(run), {}
    step = int(state.step)
    tried_steps.add(step)
    checkpoints.delete_after(step)
    return state, meta


def _restore_latest(
    run: RunContext, checkpoints: CheckpointManager, steps: Sequence[int] | None = None
) -> tuple[TrainState, dict]:
    """Restore the latest intact state and its meta; warns about newer, corrupt checkpoints."""
    state, meta, corrupt = checkpoints.restore_latest_intact(run.restore_target(), steps)
    for line in corrupt:
        log(f"warning: {line}")
    return state, meta


def init_state(run: RunContext) -> TrainState:
    """Initialize the state of step 0: fresh parameters, or those of the run in `init_from`.

    With LoRA, the adapters are fresh, and the base parameters are stored in the run's folder.
    """
    c = run.experiment
    key = jax.random.key(c.train.seed)
    state = create_state(run.trainable, run.tx, key, run.mesh, ema=c.train.ema_decay > 0)
    if not c.init_from:
        return state
    source = Path(c.init_from)
    with CheckpointManager(source / "checkpoints") as source_checkpoints:
        folders.warn_unranked(source_checkpoints, "best")
        step = broadcast_from_primary(source_checkpoints.resolve("best").steps[-1])
    has_ema = state.ema is not None
    if not c.lora.rank:  # otherwise two models would be in memory at once
        state = state._replace(params=None, ema=None)
    loaded = folders.load(source, str(step), run.mesh)
    if loaded.vocabulary.digest() != run.vocabulary.digest():
        raise ConfigError(f"--config.init_from={source} has a different vocabulary now")
    log(f"starting from the weights of {source}, step {step}")
    if c.lora.rank:
        state = state._replace(base=loaded.params)
        write_base(run.workdir, state, {"of": str(source), "step": step})
        return state
    # The average starts equal but in a separate buffer, because a step donates its state.
    ema = jax.tree.map(jnp.copy, loaded.params) if has_ema else None
    return state._replace(params=loaded.params, ema=ema)


def schedule_offset(schedule: BatchSchedule, step: int, meta: dict) -> int:
    """Number of batches by which the schedule is ahead of the steps, after a change of batching.

    If the batches differ from those of the checkpoint with this `meta`, training continues at the
    same fraction of the same epoch. The remainder of that epoch has the order of the new batches,
    so it may repeat some pairs and omit others; each later epoch has every pair once. Steps, and
    with them the learning rate, continue unchanged.
    """
    offset = meta.get("batch_offset", 0)
    batches_per_epoch = meta.get("batches_per_epoch", schedule.batches_per_epoch)
    if batches_per_epoch == schedule.batches_per_epoch:
        return offset
    batch = round((step + offset) * schedule.batches_per_epoch / batches_per_epoch)
    log(
        f"batching has changed (was {batches_per_epoch} batches per epoch): "
        f"resuming after batch {batch} of the new schedule"
    )
    return batch - step
