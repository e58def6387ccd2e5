"""Trainer: set up, restore, train, evaluate, test and report a run, from top to bottom.

The parts share a `RunContext` (run_context.py), restore.py makes the initial state, and `fit` in
train/loop.py runs the steps. With several processes, process 0 writes all files except
checkpoints, which all processes write together.
"""

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import jax

from data.batch_schedule import BatchSchedule
from experiments import workdir as folders
from experiments.after_training import evaluate_best, write_results
from experiments.config import Experiment
from experiments.console import log
from experiments.environment import record_start
from experiments.preemption import REASONS, catch_signals, exit_on_signal
from experiments.restore import restore_or_init, roll_back, schedule_offset
from experiments.run_context import RunContext
from experiments.setup import set_up
from experiments.task import Task
from experiments.workdir_lock import reserve_workdir
from train.checkpoint import CheckpointManager
from train.loop import FitResult, checkpoint_hook, fit
from train.loss_monitor import DivergedError, LossMonitor
from train.metric_logger import IN_FLIGHT
from train.metrics import MetricsWriter, read_metrics
from train.multihost import (
    AnyReduce,
    PreemptedError,
    broadcast_from_primary,
    is_primary,
    run_on_primary,
)
from train.state import TrainState
from train.watchdog import Watchdog


def train(
    experiment: Experiment,
    workdir: Path,
    allow_batch_change: bool = False,
    from_flags: Collection[str] = (),
    on_sigterm: Callable[[], object] | None = None,
    task: Task | None = None,
) -> dict:
    """Train in `workdir`, or resume there; returns the summary that the command prints as JSON.

    All settings and data are checked before files of the run are written. The folder is locked
    first, so that the watchdog also covers reading the data; a rejected start leaves it unchanged.
    `from_flags` as in `set_up`. `on_sigterm` ends the process of a command on a SIGTERM before
    there is anything to save (experiments/preemption.py). `task` is translation by default.

    Raises ConfigError, DataError or CheckpointError for unusable settings, data or checkpoints, and
    DivergedError if loss or gradient stays non-finite.
    """
    start = time.monotonic()
    c = experiment.train
    try:
        with catch_signals(c.grace_seconds) as signal, ExitStack() as stack:
            before_training = stack.enter_context(ExitStack())
            before_training.enter_context(exit_on_signal(on_sigterm))
            run_on_primary(lambda: stack.enter_context(reserve_workdir(workdir)))
            watchdog = stack.enter_context(
                Watchdog(workdir, c.heartbeat_timeout_seconds, c.stall_timeout_seconds)
            )

            def signal_at(step: int) -> str:
                """The received signal, or ""; from step 1 on there is something to save."""
                if step:
                    before_training.close()
                return signal(step)

            run = set_up(
                experiment, workdir, allow_batch_change, from_flags, task, watchdog, signal_at
            )
            with CheckpointManager(
                workdir / "checkpoints", c.keep_last, c.keep_best
            ) as checkpoints:
                return _restore_train_test(run, checkpoints, start)
    except PreemptedError as preemption:
        return preempted_before_training(str(preemption))


def preempted_before_training(reason: str) -> dict:
    """The summary that `train` returns if it was stopped before there was anything to save."""
    return {"step": None, "num_params": None, "num_trainable_params": None, "stopped_by": reason}


def _restore_train_test(run: RunContext, checkpoints: CheckpointManager, start: float) -> dict:
    """Run the steps after set-up; returns the summary."""
    # Restore. A resumed run writes its settings only after the restore succeeded.
    resumed = broadcast_from_primary(folders.has_checkpoint(run.workdir))
    if not resumed:
        run_on_primary(partial(write_settings, run))
    sizes = run.param_counts()
    _announce(run, sizes)
    state, meta = restore_or_init(run, checkpoints)
    if resumed:
        run_on_primary(partial(write_settings, run))

    # Train and evaluate.
    result = train_loop(run, checkpoints, state, meta, start)

    # Test and report, unless the run was preempted.
    test_start = time.monotonic()
    try:
        tested = evaluate_best(run, checkpoints, result.step)
    except PreemptedError as preemption:
        return {"step": result.step, **sizes, "stopped_by": str(preemption)}
    if not is_primary():
        return {}
    summary = write_results(run, checkpoints, tested, result.step, sizes)
    summary["elapsed_seconds"] = round(result.seconds + time.monotonic() - test_start, 1)
    if run.stop_requested(0) == "SIGINT":  # too late to stop anything
        summary["stopped_by"] = "SIGINT"
    return summary


def train_loop(
    run: RunContext, checkpoints: CheckpointManager, state: TrainState, meta: dict, start: float
) -> FitResult:
    """Train to the end from `state`, whose buffers are donated to the first step.

    `meta` is that of its checkpoint, `start` the monotonic time at which this process started.
    After a divergence, training rolls back to an earlier checkpoint and continues with the data
    reshuffled, up to `train.max_rollbacks` times per run; then it raises DivergedError. All
    processes call it together.
    """
    c = run.experiment
    if c.schedule_end is not None and c.schedule_end < c.train.num_steps:
        log(
            f"warning: the learning rate is 0 from step {c.schedule_end} on: raise "
            f"optimizer.decay_steps={c.schedule_end} to train.num_steps={c.train.num_steps}"
        )
    seconds_before_start = meta.get("elapsed_seconds", 0.0)
    step_fn = run.make_train_step()
    hooks = run.task.hooks(run)
    checkpoint_every = c.train.eval_every, c.train.checkpoint_every
    rolled_back_to: set[int] = set()

    def record_step_and_poll(step: int) -> str:
        run.watchdog.on_step(step)
        checkpoints.raise_if_save_failed()
        return run.stop_requested(step)

    while True:
        # The batch of a step is a function of its number, rollbacks, and changes of batch size.
        step, rollbacks = int(state.step), meta.get("rollbacks", 0)
        offset = schedule_offset(run.data.schedule, step, meta)
        schedule = run.data.schedule.reshuffled(rollbacks).shifted(offset)
        saved_meta = run.checkpoint_meta() | {
            "rollbacks": rollbacks,
            "batch_offset": offset,
            "batches_per_epoch": schedule.batches_per_epoch,
        }
        try:
            with (
                MetricsWriter(run.workdir, step, run.warn) if is_primary() else nullcontext()
            ) as writer:
                if writer and rollbacks and step in rolled_back_to:
                    log_rollback(run.workdir, writer, step, rollbacks)
                _, result = fit(
                    state,
                    step_fn,
                    run.data.train_batches(schedule, step, run.mesh, run.row_multiple),
                    num_steps=c.train.num_steps,
                    hooks=[*hooks, checkpoint_hook(checkpoints, saved_meta, checkpoint_every)],
                    learning_rate=run.learning_rate,
                    writer=writer,
                    log_every=c.train.log_every,
                    max_minutes=c.train.max_minutes,
                    loss_monitor=LossMonitor(
                        c.train.max_consecutive_skips, c.train.spike_threshold
                    ),
                    example_ids_at=partial(_example_ids, schedule),
                    stop_requested=record_step_and_poll,
                    sync_stop=partial(_sync_stop, AnyReduce((*REASONS, "max_minutes"), IN_FLIGHT)),
                    resume_from=meta
                    | {"elapsed_seconds": seconds_before_start + time.monotonic() - start},
                )
            break
        except DivergedError as error:
            if rollbacks >= c.train.max_rollbacks:
                checkpoints.wait()
                raise
            state, meta = roll_back(run, checkpoints, error.first_skipped_step, rolled_back_to)
            meta = meta | {"rollbacks": rollbacks + 1}
            log(
                f"{error}; rolled back to step {int(state.step)}, with the data reshuffled "
                f"(rollback {rollbacks + 1} of {c.train.max_rollbacks})"
            )
    checkpoints.wait()
    compilations = len(step_fn.traced_shapes)
    log(f"stopped by {result.stopped_by}; {compilations} compilations of the train step")
    return result


def _example_ids(schedule: BatchSchedule, step: int) -> Iterable[int]:
    return schedule[step - 1].pairs


def _sync_stop(any_process: AnyReduce, reason: str) -> str:
    """The reason to stop of any process, the same for all; signals precede max_minutes."""
    return min(any_process({reason} - {""}), default="")  # upper case sorts first


def log_rollback(workdir: Path, writer: MetricsWriter, step: int, rollbacks: int) -> None:
    """Log a rollback once: a run that is killed before its next checkpoint repeats it."""
    events = [event for event in read_metrics(workdir) if event["event"] == "rollback"]
    if not any((e["step"], e.get("rollbacks")) == (step, rollbacks) for e in events):
        writer.write(step, "rollback", {"rollbacks": rollbacks})


def write_settings(run: RunContext) -> None:
    """Write vocabulary, config.json and environment.jsonl."""
    if not folders.has_checkpoint(run.workdir):
        folders.clear_attempt(run.workdir)
        run.vocabulary.save(run.workdir)
    # Written after the vocabulary: a folder with config.json is a run.
    folders.write_config(run.workdir, run.experiment)
    record_start(run.workdir, run.mesh)


def _announce(run: RunContext, sizes: dict[str, int]) -> None:
    adapters = processes = ""
    if run.experiment.lora.rank:
        adapters = f" and {sizes['num_trainable_params']:,} trainable adapter parameters"
    if jax.process_count() > 1:
        processes = f" in {jax.process_count()} processes"
    mesh = dict(run.mesh.shape)
    log(f"{sizes['num_params']:,} parameters{adapters} on a mesh of {mesh}{processes}")
    run.task.warn(run.experiment)
