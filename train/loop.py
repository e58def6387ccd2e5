"""The training loop: batches, updates, and hooks for evaluation and checkpoints (paper 5)."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from data.batch import Batch
from train.checkpoint import CheckpointManager
from train.loss import Metrics
from train.loss_monitor import LossMonitor
from train.metric_logger import MetricLogger
from train.metrics import MetricsWriter
from train.multihost import PreemptedError
from train.progress import Progress
from train.state import TrainState

_ENDS = ("num_steps", "max_minutes", "batches")


class Hook(NamedTuple):
    """Something to do every so many steps, and once more with the last state of a run.

    `run(step, state, report)` reads the state but must not keep it: the next update takes its
    memory. It returns what it measured, or None; it raises Interrupted, with the reason, to break
    off its look because the run must end now. `report` holds what the hooks before it measured at
    this step, and `account`, what a resumed run must know: a checkpoint hook comes last and finds
    its BLEU.
    """

    name: str
    every: int | tuple[int, ...]  # at multiples of it, or of any of them; 0: only at the end
    run: Callable[[int, TrainState, dict], dict | None]
    urgent: bool = False  # whether it runs even when the run is interrupted, within seconds

    def due(self, step: int) -> bool:
        every = (self.every,) if isinstance(self.every, int) else self.every
        return any(n and step % n == 0 for n in every)


class FitResult(NamedTuple):
    """How a run ended."""

    step: int
    seconds: float  # wall clock, the runs before a resume included
    stopped_by: str  # what came to its end: "num_steps", "max_minutes", "batches", or a reason
    report: dict  # what the hooks measured last
    hook_seconds: dict[str, float]  # by name; a hook's share is this over `seconds`


def fit(
    state: TrainState,
    step_fn: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    batches: Iterable[Batch],
    *,
    num_steps: int,
    hooks: Sequence[Hook] = (),
    schedule: Callable[[int], float] | None = None,
    writer: MetricsWriter | None = None,
    progress: Progress | None = None,
    log_every: int = 100,
    max_minutes: float = 0.0,
    health: LossMonitor | None = None,
    example_ids_at: Callable[[int], Iterable[int]] | None = None,
    interrupted: Callable[[int], str] | None = None,
    agreed: Callable[[str], str] = lambda reason: reason,
    before: dict | None = None,
) -> tuple[TrainState, FitResult]:
    """Trains from `state.step` to `num_steps`; `batches` begins with the batch of that step.

    `max_minutes` of wall clock (0: no limit) end it sooner, and so does `interrupted(step)` once it
    names a reason: then only `urgent` hooks run, and others that were due are made up for by
    whoever resumes. At every step the reason, or "", is told to `agreed`, which says what is done:
    so several processes end at the same step. `before` is what `checkpoint_hook` saved of the run
    that this one resumes: time counts from that one's start, interval and health go on as they
    were. `schedule` is only read for the logs, `example_ids_at` for those of losses that `health`
    finds unusual. Raises DivergedError once `health` says so.
    """
    account = MetricLogger(
        int(state.step),
        num_steps,
        schedule=schedule,
        writer=writer,
        progress=progress,
        health=health,
        example_ids_at=example_ids_at,
        limit=60 * max_minutes or math.inf,
        before=before or {},
    )
    batches = iter(batches)
    batch = next(batches, None)
    looks = _HookRunner(account, hooks)
    try:
        unlooked = (before or {}).get("unlooked", ())
        stopped_by = looks.take(state, [hook for hook in hooks if hook.name in unlooked])
        stopped_by = stopped_by or _over(account, batch, num_steps, None, agreed)
        if not stopped_by:
            account.progress.show("compiling the first step")
        while not stopped_by:
            assert batch is not None  # or it would be over
            state, metrics = step_fn(state, batch)
            account.record_step(metrics)
            batch = next(batches, None)  # made while the device works
            stopped_by = _over(account, batch, num_steps, interrupted, agreed)
            ended = stopped_by in _ENDS
            due = hooks if ended else looks.due()
            logs = ended or account.step % log_every == 0
            if logs or due or stopped_by:
                account.settle()
            account.show()
            if logs:
                account.log()
            stopped_by = looks.take(state, due, "" if ended else stopped_by) or stopped_by
    finally:
        account.progress.close()
    return state, FitResult(account.step, account.seconds, stopped_by, looks.report, looks.seconds)


def _over(account: MetricLogger, batch: Batch | None, num_steps: int, interrupted, agreed) -> str:
    """What the run is stopped by, or nothing."""
    asked = interrupted(account.step) if interrupted else ""
    if account.step >= num_steps:
        return "num_steps"
    if batch is None:
        return "batches"
    return agreed(asked or "max_minutes" * account.late)


class _HookRunner:
    """The hooks of a run: what they measured last, and the seconds of each."""

    def __init__(self, account: MetricLogger, hooks: Sequence[Hook]):
        self._account, self._hooks = account, hooks
        self.report: dict = {}
        self.seconds: dict[str, float] = {}

    def due(self) -> list[Hook]:
        return [hook for hook in self._hooks if hook.due(self._account.step)]

    def take(self, state: TrainState, due: Sequence[Hook], reason: str = "") -> str:
        """Runs these hooks, or where there is a `reason` to end the run now, the urgent ones.

        Returns the reason, which may have come meanwhile. What was due is saved, to be made up for.
        """
        if not reason:
            try:
                self._run(state, due)
                return ""
            except PreemptedError as interruption:
                reason = str(interruption)
        urgent = [hook for hook in self._hooks if hook.urgent]
        self._run(state, urgent, unlooked=[hook.name for hook in due])
        return reason

    def _run(self, state: TrainState, hooks: Sequence[Hook], **more) -> None:
        """Runs these, which find `more` in the account; tells what they measured."""
        measured: dict = {}
        untold = False
        for hook in hooks:
            if hook.urgent and untold:  # who goes on from a checkpoint does not look again
                self._tell(measured)
                untold = False
            start = time.monotonic()
            report = measured | {"account": self._account.saved | more}
            found = hook.run(self._account.step, state, report) or {}
            measured |= found
            untold |= bool(found)
            spent = time.monotonic() - start
            self._account.add_hook_time(spent)
            self.seconds[hook.name] = self.seconds.get(hook.name, 0.0) + spent
        if untold:
            self._tell(measured)

    def _tell(self, measured: dict) -> None:
        self.report = dict(measured)
        self._account.measured(self.report, self.seconds)


def validation_hook(
    eval_fn: Callable[..., Metrics],
    batches: Callable[[], Iterable[Batch]],
    every: int,
    name: str = "validation",
    weights: Callable[[TrainState], Any] = lambda state: state.weights,
) -> Hook:
    """Measures loss, nll, accuracy and perplexity of a state's `weights` over all `batches()`."""

    def run(_step: int, state: TrainState, _report: dict) -> dict:
        return total_metrics(eval_fn, weights(state), batches()).to_dict()

    return Hook(name, every, run)


def total_metrics(eval_fn: Callable[..., Metrics], params, batches: Iterable[Batch]) -> Metrics:
    """The sums of `eval_fn` over all batches, on the host."""
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
    """Saves the state, what was measured at its step, and in `meta` what `fit` resumes by."""

    def run(step: int, state: TrainState, report: dict) -> None:
        measured = {key: value for key, value in report.items() if key != "account"}
        checkpoints.save(step, state, meta | report["account"], measured)

    return Hook(name, every, run, urgent=True)
