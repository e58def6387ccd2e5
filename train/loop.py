"""The training loop: take a batch, update, and now and then stop to look (paper, section 5)."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax

from data.batch import Batch
from train.checkpoint import Checkpoints
from train.loss import Metrics
from train.metrics import MetricsWriter
from train.progress import Progress, duration
from train.state import TrainState

IN_FLIGHT = 2  # updates handed to the device and not yet awaited: enough to keep it busy


class DivergedError(ValueError):
    """The loss is no longer a number; one line that says since when, and what helps."""


class Hook(NamedTuple):
    """Something to do every so many steps, and once more with the last state of a run.

    `run(step, state, report)` reads the state but must not keep it: the next update takes its
    memory. It returns what it measured, or None. `report` holds what the hooks before it measured
    at this step, and `seconds`, the run's age: a checkpoint hook comes last and finds its BLEU.
    """

    name: str
    every: int | tuple[int, ...]  # at multiples of it, or of any of them; 0: only at the end
    run: Callable[[int, TrainState, dict], dict | None]

    def due(self, step: int) -> bool:
        every = (self.every,) if isinstance(self.every, int) else self.every
        return any(n and step % n == 0 for n in every)


class Summary(NamedTuple):
    """How a run ended."""

    step: int
    seconds: float  # wall clock, the runs before a resume included
    stopped_by: str  # what came to its end: "num_steps", "max_minutes" or "batches"
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
    seconds_before: float = 0.0,
) -> tuple[TrainState, Summary]:
    """Trains from `state.step` to `num_steps`; `batches` begins with the batch of that step.

    `max_minutes` of wall clock (0: no limit) end it sooner; they count from the first run's start
    where a resumed run passes that one's `seconds_before`. `schedule` is only read for the logs.
    Raises DivergedError once the loss is not finite, before any hook can save what came of it.
    """
    step = int(state.step)
    run = _Run(step, num_steps, max_minutes, schedule, writer, progress, seconds_before)
    batches = iter(batches)
    batch = next(batches, None)
    stopped_by = run.over(batch)
    try:
        while not stopped_by:
            state, metrics = step_fn(state, batch)
            step += 1
            run.took(metrics)
            batch = next(batches, None)  # made while the device works
            stopped_by = run.over(batch)
            logs = stopped_by or step % log_every == 0
            due = [hook for hook in hooks if stopped_by or hook.due(step)]
            if logs or due:
                run.settle()
            run.show()
            if logs:
                run.log()
            if due:
                run.look(state, due)
    finally:
        run.progress.close()
    return state, Summary(step, run.seconds, stopped_by, run.report, run.hook_seconds)


def validation_hook(
    eval_fn: Callable[..., Metrics],
    batches: Callable[[], Iterable[Batch]],
    every: int,
    name: str = "validation",
) -> Hook:
    """Measures loss, nll, accuracy and perplexity over all of `batches()`."""

    def run(_step: int, state: TrainState, _report: dict) -> dict:
        return total_metrics(eval_fn, state.weights, batches()).to_dict()

    return Hook(name, every, run)


def total_metrics(eval_fn: Callable[..., Metrics], params, batches: Iterable[Batch]) -> Metrics:
    """The sums of `eval_fn` over all batches, on the host."""
    total = Metrics.zero()
    for batch in batches:
        total += jax.device_get(eval_fn(params, batch))
    return total


def checkpoint_hook(
    checkpoints: Checkpoints, meta: dict, every: int | tuple[int, ...], name: str = "checkpoint"
) -> Hook:
    """Saves the state with what was measured at its step, and with the run's age in `meta`."""

    def run(step: int, state: TrainState, report: dict) -> None:
        measured = {key: value for key, value in report.items() if key != "seconds"}
        checkpoints.save(step, state, meta | {"seconds": report["seconds"]}, measured)

    return Hook(name, every, run)


class _Run:
    """A run's own account: its clocks, the sums of its updates, and where both are told."""

    def __init__(self, step, num_steps, max_minutes, schedule, writer, progress, seconds_before):
        self.progress = progress or Progress()
        self.report: dict = {}
        self.hook_seconds: dict[str, float] = {}
        self._first = self._step = step
        self._num_steps = num_steps
        self._limit = 60 * max_minutes or math.inf
        self._schedule = schedule
        self._writer = writer
        self._seconds_before = seconds_before
        self._start = time.monotonic()
        self._in_flight: deque[Metrics] = deque()
        self._sums = self._sums_before = Metrics.zero()  # since the last log, and those before it
        self._since = self._since_before = 0.0  # seconds of updating when these began

    @property
    def seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._start

    @property
    def _updating(self) -> float:
        """Seconds outside of hooks."""
        return time.monotonic() - self._start - sum(self.hook_seconds.values())

    def over(self, batch: Batch | None) -> str:
        """What the run is stopped by, or nothing."""
        if self._step >= self._num_steps:
            return "num_steps"
        if self.seconds >= self._limit:
            return "max_minutes"
        return "batches" if batch is None else ""

    def took(self, metrics: Metrics) -> None:
        """Counts an update just handed to the device."""
        self._step += 1
        self._in_flight.append(metrics)
        # By the time an update is this old the device has others to do, so waiting costs nothing.
        self.settle(IN_FLIGHT)

    def settle(self, leave: int = 0) -> None:
        """Awaits the updates under way, but for the `leave` newest."""
        while len(self._in_flight) > leave:
            metrics = jax.device_get(self._in_flight.popleft())
            if not math.isfinite(metrics.loss_sum + metrics.grad_norm_sum):
                step = self._step - len(self._in_flight)
                raise DivergedError(
                    f"step {step}: loss {metrics.loss}, gradient norm {metrics.grad_norm_sum}: "
                    "training diverged; lower optimizer.learning_rate, raise "
                    "optimizer.warmup_steps or set optimizer.clip_norm"
                )
            self._sums += Metrics(*map(float, metrics))

    def log(self) -> None:
        """Closes the interval since the last log, and writes what it was like."""
        if self._writer:
            seconds = self._updating - self._since
            values = _describe(self._sums, seconds) | self._learning_rate()
            self._writer.write(self._step, "train", values | {"seconds": self.seconds})
        self._sums_before, self._sums = self._sums, Metrics.zero()
        self._since_before, self._since = self._since, self._updating

    def show(self) -> None:
        """The live line, over the interval under way and the one before it."""
        sums = self._sums_before + self._sums
        if not (self.progress.due() and sums.tokens):
            return
        told = _describe(sums, self._updating - self._since_before) | self._learning_rate()
        elapsed = time.monotonic() - self._start
        left = elapsed / (self._step - self._first) * (self._num_steps - self._step)
        left = max(min(left, self._limit - self.seconds), 0)
        rate = f"lr {told['learning_rate']:.2e}  " if "learning_rate" in told else ""
        self.progress.show(
            f"step {self._step:,}/{self._num_steps:,}  loss {told['loss']:.4f}  {rate}"
            f"{told['tokens_per_second']:,.0f} tokens/s  padding {told['padding']:.0%}  "
            f"{duration(left)} left"
        )

    def look(self, state: TrainState, hooks: Sequence[Hook]) -> None:
        """Runs the hooks, and tells what they measured and what share of the time they take."""
        report: dict = {}
        for hook in hooks:
            start = time.monotonic()
            report["seconds"] = self.seconds
            report |= hook.run(self._step, state, report) or {}
            spent = self.hook_seconds.get(hook.name, 0.0) + time.monotonic() - start
            self.hook_seconds[hook.name] = spent
        measured = {key: value for key, value in report.items() if key != "seconds"}
        if not measured:
            return
        self.report = measured
        if self._writer:
            self._writer.write(self._step, "valid", measured | {"seconds": self.seconds})
        elapsed = time.monotonic() - self._start
        shares = (f"{name} {spent / elapsed:.0%}" for name, spent in self.hook_seconds.items())
        told = (f"{k} {v:.4g}" for k, v in measured.items() if isinstance(v, int | float))
        self.progress.note(f"step {self._step:,}  {'  '.join(told)}  (time: {', '.join(shares)})")

    def _learning_rate(self) -> dict[str, float]:
        # The latest update was the one with step - 1 updates before it.
        rate = self._schedule and float(self._schedule(self._step - 1))
        return {} if rate is None else {"learning_rate": rate}


def _describe(sums: Metrics, seconds: float) -> dict[str, float]:
    """Real tokens are the source's and the target's, without PAD."""
    real = sums.source_tokens + sums.tokens
    return sums.to_dict() | {
        "grad_norm": sums.grad_norm_sum / max(sums.updates, 1),
        "tokens_per_second": real / max(seconds, 1e-9),
        "padding": 1 - real / max(sums.slots, 1),
    }
