"""Train from the latest checkpoint to the end, with rollback on divergence."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from data.batch import Batch
from data.batch_schedule import BatchSchedule
from data.pipeline import Shard, train_batches
from experiments import workdir as folders
from experiments.console import note
from experiments.evaluation_hooks import EvaluationHooks
from experiments.lora import check_base, write_base
from experiments.preemption import REASONS
from experiments.resume_rules import resume_line
from experiments.training import RunContext
from model import ConfigError
from model.sharding import local_batch_shards, make_global_batch, num_batch_shards
from train.checkpoint import CheckpointManager
from train.loop import FitResult, fit
from train.loss_monitor import DivergedError, LossMonitor
from train.metric_logger import IN_FLIGHT
from train.metrics import MetricsWriter, read_metrics
from train.multihost import AnyReduce, broadcast_from_primary, is_primary
from train.state import TrainState, create_state
from train.watchdog import Watchdog


def follow(
    t: RunContext,
    checkpoints: CheckpointManager,
    state: TrainState,
    meta: dict,
    begun: float,
    watchdog: Watchdog,
    interrupted: Callable[[int], str],
) -> FitResult:
    """Train on from what `last_state` returned, which the first step uses up.

    `begun` is this process's start on the monotonic clock.

    A divergence goes back to a checkpoint from before it, and on in another order of the data, up
    to `train.rewinds` times in a run. Raises DivergedError beyond that. `interrupted(step)` names
    what ends it sooner. Several processes do all of it together, step by step.
    """
    c = t.experiment
    if c.schedule_end is not None and c.schedule_end < c.train.num_steps:
        note(
            f"warning: the learning rate is 0 from step {c.schedule_end} on: raise "
            f"optimizer.decay_steps={c.schedule_end} to train.num_steps={c.train.num_steps}"
        )
    age = meta.get("seconds", 0.0)
    step_fn = t.compile_step()
    tried: set[int] = set()
    looks = EvaluationHooks(t, checkpoints, interrupted, watchdog)

    def heard(step: int) -> str:
        watchdog.at(step)
        return interrupted(step)

    while True:
        step = int(state.step)
        rewinds = meta.get("rewinds", 0)
        ahead = ahead_of(t.text.plan, step, meta)
        plan = t.text.plan.reordered(rewinds).ahead(ahead)
        place = dict(rewinds=rewinds, ahead=ahead, epoch=plan.batches_per_epoch)
        agreed = partial(_soonest, AnyReduce((*REASONS, "max_minutes"), IN_FLIGHT))
        try:
            with MetricsWriter(t.workdir, step) if is_primary() else nullcontext() as writer:
                if writer and rewinds and step in tried:
                    _tell_rewind(t, writer, step, rewinds)
                _, summary = fit(
                    state,
                    step_fn,
                    _batches(t, plan, step),
                    num_steps=c.train.num_steps,
                    hooks=looks.hooks(**place),
                    schedule=t.schedule,
                    writer=writer,
                    log_every=c.train.log_every,
                    max_minutes=c.train.max_minutes,
                    health=LossMonitor(c.train.max_skipped, c.train.spike),
                    example_ids_at=partial(_pairs_of, plan),
                    interrupted=heard,
                    agreed=agreed,
                    before=meta | {"seconds": age + time.monotonic() - begun},
                )
            break
        except DivergedError as error:
            if rewinds >= c.train.rewinds:
                checkpoints.wait()
                raise
            state, meta = _before(t, checkpoints, error.since, tried)
            meta = meta | {"rewinds": rewinds + 1}
            note(
                f"{error}; back to step {int(state.step)}, in another order of the data "
                f"({rewinds + 1} of {c.train.rewinds} times)"
            )
    checkpoints.wait()
    traced = len(step_fn.traced)
    note(f"stopped by {summary.stopped_by}; {traced} compilations of the train step")
    return summary


def ahead_of(plan: BatchSchedule, step: int, meta: dict) -> int:
    """How far the plan is ahead of the steps, in a run that has changed its batches.

    Where they are others than those of the checkpoint with this `meta`, the run goes on at the
    same share of the same epoch. The rest of that epoch is in the order of the new batches, and so
    may have again some of its pairs, and others not; each later epoch has every pair once. Steps,
    and with them the learning rate, go on as they were.
    """
    ahead, epoch = meta.get("ahead", 0), meta.get("epoch", plan.batches_per_epoch)
    if epoch == plan.batches_per_epoch:
        return ahead
    there = round((step + ahead) * plan.batches_per_epoch / epoch)
    note(f"batches have changed: {epoch} an epoch until now; going on after {there} of the new")
    return there - step


def _pairs_of(plan: BatchSchedule, step: int) -> Iterable[int]:
    return plan[step - 1].pairs


def _soonest(agree: AnyReduce, reason: str) -> str:
    """A signal, if a process has one: it has least time. The same one in all processes."""
    return min(agree({reason} - {""}), default="")


def _batches(t: RunContext, plan: BatchSchedule, step: int) -> Iterator[Batch]:
    """The batches from `step` on, of which each process makes the rows that its devices need."""
    own = Shard(local_batch_shards(t.mesh), num_batch_shards(t.mesh))
    pairs = t.text.pairs["train"]
    made = train_batches(pairs, plan, step, shard=own, multiple_of=t.rows_multiple)
    return (make_global_batch(batch, t.mesh) for batch in made)


def last_state(t: RunContext, checkpoints: CheckpointManager) -> tuple[TrainState, dict]:
    """The state to begin or to resume with, and what its checkpoint was saved with.

    Raises ConfigError or CheckpointError where the folder's vocabulary, text or base is not that of
    the checkpoint.
    """
    if not broadcast_from_primary(checkpoints.steps()):
        return first_state(t), {}
    state, meta = _newest(t, checkpoints)
    folders.check_vocabulary(t.workdir, t.vocabulary, meta)
    folders.check_text(t.workdir, t.text.digests, meta)
    check_base(t.workdir, t.experiment, meta)
    old = folders.settings_of(meta) or t.previous or t.experiment
    note(resume_line(old, t.experiment, int(state.step)))
    return state, meta


def _before(
    t: RunContext, checkpoints: CheckpointManager, since: int, tried: set[int]
) -> tuple[TrainState, dict]:
    """The newest whole state from before step `since` that was not yet `tried`; later ones go.

    Where all were tried it is the oldest again, in one more order of the data, and where there is
    none the run's beginning. Raises DamagedError where none is whole.
    """
    checkpoints.wait()
    there = [step for step in broadcast_from_primary(checkpoints.steps()) if step < since]
    untried = [step for step in there if step not in tried]
    state, meta = _newest(t, checkpoints, untried or there[:1]) if there else (first_state(t), {})
    step = int(state.step)
    tried.add(step)
    checkpoints.delete_after(step)
    return state, meta


def _newest(
    t: RunContext, checkpoints: CheckpointManager, among: Sequence[int] | None = None
) -> tuple[TrainState, dict]:
    """The newest whole state, and what it was saved with; tells what is wrong with newer ones."""
    state, meta, damaged = checkpoints.restore_latest_intact(t.restore_target(), among)
    for line in damaged:
        note(f"warning: {line}")
    return state, meta


def _tell_rewind(t: RunContext, writer: MetricsWriter, step: int, rewinds: int) -> None:
    """Once: whoever was killed before the next checkpoint goes back once more."""
    events = [event for event in read_metrics(t.workdir) if event["split"] == "rewind"]
    if not any((e["step"], e.get("rewinds")) == (step, rewinds) for e in events):
        writer.write(step, "rewind", {"rewinds": rewinds})


def first_state(t: RunContext) -> TrainState:
    """Where a training begins: fresh parameters, or those of the run that it begins with.

    Where adapters are trained, these are fresh, and the others go into the run's folder.
    """
    c = t.experiment
    key = jax.random.key(c.train.seed)
    state = create_state(t.learner, t.tx, key, t.mesh, ema=c.train.ema > 0)
    if not c.init_from:
        return state
    source = Path(c.init_from)
    with CheckpointManager(source / "checkpoints") as there:
        folders.warn_unranked(there, "best")
        step = broadcast_from_primary(there.choice("best").steps[-1])
    keeps = state.ema is not None
    if not c.lora.rank:  # or there were two models at once
        state = state._replace(params=None, ema=None)
    begin = folders.load(source, str(step), t.mesh)
    if begin.vocabulary.digest() != t.vocabulary.digest():
        raise ConfigError(f"--config.init_from={source} has changed its vocabulary meanwhile")
    note(f"beginning with the weights of {source}, step {step}")
    if c.lora.rank:
        state = state._replace(base=begin.params)
        write_base(t.workdir, state, {"of": str(source), "step": step})
        return state
    # Their average begins as they do, but in memory of its own: a step gives its state away.
    ema = jax.tree.map(jnp.copy, begin.params) if keeps else None
    return state._replace(params=begin.params, ema=ema)
