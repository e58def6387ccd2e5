"""Metric logger: wall clocks, running sums of metrics, and their output."""

import time
from collections import deque
from collections.abc import Callable, Iterable

import jax
from jax import Array

from train.loss import Metrics
from train.loss_monitor import LossMonitor
from train.metrics import MetricsWriter
from train.progress import Progress, format_duration

IN_FLIGHT = 2  # updates dispatched but not yet awaited: enough to keep the device busy


class MetricLogger:
    """Log training metrics: call `record_step` after each update, `log` once per interval.

    Metrics are fetched a few updates later, so the device never waits. `example_ids_at(step)`
    returns the indices of the examples of update `step`, which are logged if its loss is a spike.
    `resume_from` is the `state_dict` that an earlier run saved.
    """

    def __init__(
        self,
        step: int,
        num_steps: int,
        *,
        learning_rate: Callable[[int], float] | None,
        writer: MetricsWriter | None,
        progress: Progress | None,
        loss_monitor: LossMonitor | None,
        example_ids_at: Callable[[int], Iterable[int]] | None,
        max_seconds: float,
        resume_from: dict,
    ):
        self.progress = progress or Progress()
        self.step = self._first_step = step
        self._num_steps, self._max_seconds = num_steps, max_seconds
        self._schedule, self._writer, self._example_ids_at = learning_rate, writer, example_ids_at
        self._loss_monitor = loss_monitor or LossMonitor()
        self._previous_seconds = resume_from.get("elapsed_seconds", 0.0)
        self._start = time.monotonic()
        self._hook_seconds = 0.0
        self._in_flight: deque[Metrics] = deque()
        # Sums and start times of the current log interval and of the previous one.
        self._sums = self._previous_sums = Metrics.zero()
        self._interval_start = self._previous_start = -resume_from.get("interval_seconds", 0.0)
        if "interval_sums" in resume_from:
            self._sums = Metrics(*resume_from["interval_sums"])
            self._loss_monitor.state = resume_from["loss_monitor"]

    @property
    def state_dict(self) -> dict:
        """The state for a resumed run, as numbers; no update may be in flight."""
        return {
            "elapsed_seconds": self.seconds,
            "interval_seconds": self._update_seconds - self._interval_start,
            "interval_sums": list(self._sums),
            "loss_monitor": self._loss_monitor.state,
        }

    @property
    def seconds(self) -> float:
        """Seconds since the run started, including the time before a resume."""
        return self._previous_seconds + self.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since this process started or resumed the run."""
        return time.monotonic() - self._start

    @property
    def _update_seconds(self) -> float:
        """Seconds outside of hooks."""
        return self.elapsed - self._hook_seconds

    @property
    def out_of_time(self) -> bool:
        """Whether the run has reached its `max_seconds`."""
        return self.seconds >= self._max_seconds

    def add_hook_time(self, seconds: float) -> None:
        """Add time spent in hooks."""
        self._hook_seconds += seconds

    def record_step(self, metrics: Metrics) -> None:
        """Record an update that was just dispatched."""
        self.step += 1
        self._in_flight.append(metrics)
        # The device has newer updates queued, so waiting for an older one costs nothing.
        self.wait(IN_FLIGHT)

    def wait(self, keep_in_flight: int = 0) -> None:
        """Fetch metrics of all but the newest `keep_in_flight` updates. Raises DivergedError."""
        while len(self._in_flight) > keep_in_flight:
            metrics = Metrics(*map(float, jax.device_get(self._in_flight.popleft())))
            self._sums += metrics
            step = self.step - len(self._in_flight)
            expected = self._loss_monitor.update(step, metrics)
            if expected is not None:
                self._log_spike(step, metrics.loss, expected)

    def log(self) -> None:
        """Close the interval since the last log, and write its metrics."""
        if self._writer:
            seconds = self._update_seconds - self._interval_start
            values = _summarize(self._sums, seconds) | self._learning_rate()
            self._writer.write(self.step, "train", values | {"elapsed_seconds": self.seconds})
        self._previous_sums, self._sums = self._sums, Metrics.zero()
        self._previous_start, self._interval_start = self._interval_start, self._update_seconds

    def update_progress(self) -> None:
        """Refresh the live line, over the current and the previous interval."""
        sums = self._previous_sums + self._sums
        if not (self.progress.due() and sums.tokens):
            return
        values = _summarize(sums, self._update_seconds - self._previous_start)
        values |= self._learning_rate()
        remaining = self.elapsed / (self.step - self._first_step) * (self._num_steps - self.step)
        remaining = max(min(remaining, self._max_seconds - self.seconds), 0)
        rate = f"lr {values['learning_rate']:.2e}  " if "learning_rate" in values else ""
        self.progress.show(
            f"step {self.step:,}/{self._num_steps:,}  loss {values['loss']:.4f}  {rate}"
            f"{values['tokens_per_second']:,.0f} tokens/s  "
            f"padding {values['padding_fraction']:.0%}  {format_duration(remaining)} left"
        )

    def log_eval(self, values: dict, hook_seconds: dict[str, float]) -> None:
        """Write the measurements of the hooks, and each hook's share of the time."""
        if self._writer:
            self._writer.write(self.step, "valid", values | {"elapsed_seconds": self.seconds})
        shares = (f"{name} {s / self.elapsed:.0%}" for name, s in hook_seconds.items())
        numbers = (f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, int | float))
        self.progress.log(f"step {self.step:,}  {'  '.join(numbers)}  (time: {', '.join(shares)})")

    def _log_spike(self, step: int, loss: float, expected: float) -> None:
        ids = [int(i) for i in self._example_ids_at(step)] if self._example_ids_at else []
        if self._writer:
            self._writer.write(step, "spike", {"loss": loss, "expected": expected, "pairs": ids})
        pairs = f": pairs {', '.join(map(str, ids[:8]))}" if ids else ""
        pairs += " .." if len(ids) > 8 else ""
        self.progress.log(f"step {step:,}  loss {loss:.4g}, about {expected:.4g} expected{pairs}")

    def _learning_rate(self) -> dict[str, float]:
        # The schedule takes the number of updates before the latest one.
        rate = self._schedule and float(self._schedule(self.step - 1))
        return {} if rate is None else {"learning_rate": rate}


def _summarize(sums: Metrics, seconds: float) -> dict[str, Array | float]:
    """Ratios over an interval; real tokens are those of source and target, without PAD."""
    tokens = sums.source_tokens + sums.tokens
    return sums.to_dict() | {
        "grad_norm": sums.grad_norm_sum / max(sums.updates, 1),
        "skipped_updates": sums.skipped,
        "tokens_per_second": tokens / max(seconds, 1e-9),
        "padding_fraction": 1 - tokens / max(sums.num_positions, 1),
    }
