"""The training loop: batches, updates, and hooks for evaluation and checkpoints (paper 5)."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from train.checkpoint import CheckpointManager
from train.loss import Metrics
from train.loss_monitor import LossMonitor
from train.metric_logger import MetricLogger
from train.metrics import MetricsWriter
from train.multihost import PreemptedError
from train.progress import Progress
from train.state import TrainState

# The reasons after which every hook runs; any other is a preemption.
_COMPLETE = ("num_steps", "max_minutes", "batches")


class Hook(NamedTuple):
    """An action at regular steps, and at the end of a run.

    `run(step, state, report)` reads the state but must not store it: the next update donates it. It
    returns its measurements, or None. It raises PreemptedError, with the reason, if the run must
    stop now. `report` holds the measurements of earlier hooks at this step, and `logger`, the state
    that a resumed run needs: a checkpoint hook is last, so its report has the BLEU.
    """

    name: str
    every: int | tuple[int, ...]  # at multiples of it, or of any in the tuple; 0: only at the end
    run: Callable[[int, TrainState, dict], dict | None]
    on_preemption: bool = False  # whether it runs on preemption, within seconds

    def due(self, step: int) -> bool:
        intervals = (self.every,) if isinstance(self.every, int) else self.every
        return any(n and step % n == 0 for n in intervals)


class FitResult(NamedTuple):
    """The result of `fit`: how the run ended."""

    step: int
    seconds: float  # wall clock, including the time before a resume
    stopped_by: str  # "num_steps", "max_minutes", "batches", or the reason of `stop_requested`
    report: dict  # the latest measurements of the hooks
    hook_seconds: dict[str, float]  # by name


def fit(
    state: TrainState,
    step_fn: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    batches: Iterable[Any],
    *,
    num_steps: int,
    hooks: Sequence[Hook] = (),
    learning_rate: Callable[[int], float] | None = None,
    writer: MetricsWriter | None = None,
    progress: Progress | None = None,
    log_every: int = 100,
    max_minutes: float = 0.0,
    loss_monitor: LossMonitor | None = None,
    example_ids_at: Callable[[int], Iterable[int]] | None = None,
    stop_requested: Callable[[int], str] | None = None,
    sync_stop: Callable[[str], str] = lambda reason: reason,
    resume_from: dict | None = None,
) -> tuple[TrainState, FitResult]:
    """Train from `state.step` to `num_steps`; `batches` begins with the batch of that step.

    Training stops early after `max_minutes` of wall clock (0: no limit), or when
    `stop_requested(step)` returns a reason: then only hooks with `on_preemption` run, and a resumed
    run executes the other hooks that were due. Every step passes the reason, or "", to `sync_stop`,
    which returns the reason common to all processes, so that they stop at the same step.
    `resume_from` is the state that `checkpoint_hook` saved: clocks, the current log interval and
    the loss monitor continue. `learning_rate` is used only for logs, `example_ids_at` for logs of
    spikes that `loss_monitor` detects. Raises DivergedError when `loss_monitor` does.
    """
    resume_from = resume_from or {}
    logger = MetricLogger(
        int(state.step),
        num_steps,
        learning_rate=learning_rate,
        writer=writer,
        progress=progress,
        loss_monitor=loss_monitor,
        example_ids_at=example_ids_at,
        max_seconds=60 * max_minutes or math.inf,
        resume_from=resume_from,
    )
    batches = iter(batches)
    batch = next(batches, None)
    runner = _HookRunner(logger, hooks)
    try:
        pending = resume_from.get("pending_hooks", ())
        stopped_by = runner.run(state, [hook for hook in hooks if hook.name in pending])
        stopped_by = stopped_by or _stop_reason(logger, batch, num_steps, None, sync_stop)
        if not stopped_by:
            logger.progress.show("compiling the first step")
        while not stopped_by:
            assert batch is not None  # otherwise stopped_by is "batches"
            state, metrics = step_fn(state, batch)
            logger.record_step(metrics)
            batch = next(batches, None)  # prepared while the device computes
            stopped_by = _stop_reason(logger, batch, num_steps, stop_requested, sync_stop)
            complete = stopped_by in _COMPLETE
            due = hooks if complete else runner.due()
            log = complete or logger.step % log_every == 0
            if log or due or stopped_by:
                logger.wait()
            logger.update_progress()
            if log:
                logger.log()
            stopped_by = runner.run(state, due, "" if complete else stopped_by) or stopped_by
    finally:
        logger.progress.close()
    result = FitResult(logger.step, logger.seconds, stopped_by, runner.report, runner.seconds)
    return state, result


def _stop_reason(logger: MetricLogger, batch, num_steps: int, stop_requested, sync_stop) -> str:
    """The reason to stop the run now, or ""."""
    # Called at every step, since it may count.
    signal = stop_requested(logger.step) if stop_requested else ""
    if logger.step >= num_steps:
        return "num_steps"
    if batch is None:
        return "batches"
    return sync_stop(signal or ("max_minutes" if logger.out_of_time else ""))


class _HookRunner:
    """Runs the hooks; keeps their latest measurements and the seconds of each."""

    def __init__(self, logger: MetricLogger, hooks: Sequence[Hook]):
        self._logger, self._hooks = logger, hooks
        self.report: dict = {}
        self.seconds: dict[str, float] = {}

    def due(self) -> list[Hook]:
        return [hook for hook in self._hooks if hook.due(self._logger.step)]

    def run(self, state: TrainState, due: Sequence[Hook], stop_reason: str = "") -> str:
        """Run the hooks that are due; on preemption only those with `on_preemption`.

        Returns the reason to stop, which may come from a hook. The names of due hooks that did not
        run are saved for a resumed run.
        """
        if not stop_reason:
            try:
                self._run(state, due)
                return ""
            except PreemptedError as preemption:
                stop_reason = str(preemption)
        preemption_hooks = [hook for hook in self._hooks if hook.on_preemption]
        self._run(state, preemption_hooks, pending_hooks=[hook.name for hook in due])
        return stop_reason

    def _run(self, state: TrainState, hooks: Sequence[Hook], **saved) -> None:
        """Run these hooks, with `saved` added to the report's `logger`; log their measurements."""
        measured: dict = {}
        unlogged = False
        for hook in hooks:
            # A run that resumes from a checkpoint does not evaluate again: log before saving.
            if hook.on_preemption and unlogged:
                self._log(measured)
                unlogged = False
            start = time.monotonic()
            report = measured | {"logger": self._logger.state_dict | saved}
            result = hook.run(self._logger.step, state, report) or {}
            measured |= result
            unlogged |= bool(result)
            seconds = time.monotonic() - start
            self._logger.add_hook_time(seconds)
            self.seconds[hook.name] = self.seconds.get(hook.name, 0.0) + seconds
        if unlogged:
            self._log(measured)

    def _log(self, measured: dict) -> None:
        self.report = dict(measured)
        self._logger.log_eval(self.report, self.seconds)


def validation_hook(
    eval_fn: Callable[..., Metrics],
    batches: Callable[[], Iterable[Any]],
    every: int,
    name: str = "validation",
    weights: Callable[[TrainState], Any] = lambda state: state.eval_params,
) -> Hook:
    """Make a hook that measures loss, nll, accuracy and perplexity of a state's `weights`."""

    def run(_step: int, state: TrainState, _report: dict) -> dict:
        return total_metrics(eval_fn, weights(state), batches()).to_dict()

    return Hook(name, every, run)


def total_metrics(eval_fn: Callable[..., Metrics], params, batches: Iterable[Any]) -> Metrics:
    """Sum the metrics of `eval_fn` over all batches, on the host."""
    total = Metrics.zero()
    for batch in batches:
        total += jax.device_get(eval_fn(params, batch))
    return total


def checkpoint_hook(
    checkpoints: CheckpointManager,
    meta: dict,
    every: int | tuple[int, ...],
    name: str = "checkpoint",
) -> Hook:
    """Make a hook that saves the state, its metrics, and `meta` with the logger's state."""

    def run(step: int, state: TrainState, report: dict) -> None:
        measured = {key: value for key, value in report.items() if key != "logger"}
        checkpoints.save(step, state, meta | report["logger"], measured)

    return Hook(name, every, run, on_preemption=True)
