"""Metric logger: wall clocks, running sums of metrics, and where they are written."""

import time
from collections import deque
from collections.abc import Callable, Iterable

import jax
from jax import Array

from train.loss import Metrics
from train.loss_monitor import LossMonitor
from train.metrics import MetricsWriter
from train.progress import Progress, duration

IN_FLIGHT = 2  # updates handed to the device and not yet awaited: enough to keep it busy


class MetricLogger:
    """Told of every update by `record_step`; awaits it, sums it up, and writes it down when asked.

    `example_ids_at(step)` are the numbers of the pairs of update `step`, to be named if its loss is
    a spike. `before` is what an earlier run saved as `saved`.
    """

    def __init__(
        self,
        step: int,
        num_steps: int,
        *,
        schedule: Callable[[int], float] | None,
        writer: MetricsWriter | None,
        progress: Progress | None,
        health: LossMonitor | None,
        example_ids_at: Callable[[int], Iterable[int]] | None,
        limit: float,
        before: dict,
    ):
        self.progress = progress or Progress()
        self.step = self._first = step
        self._num_steps, self._limit = num_steps, limit
        self._schedule, self._writer, self._pairs_of = schedule, writer, example_ids_at
        self._health = health or LossMonitor()
        self._seconds_before = before.get("seconds", 0.0)
        self._start = time.monotonic()
        self._in_hooks = 0.0
        self._in_flight: deque[Metrics] = deque()
        # Since the last log, and those before it; and seconds of updating when these began.
        self._sums = self._sums_before = Metrics.zero()
        self._since = self._since_before = -before.get("updating", 0.0)
        if "sums" in before:
            self._sums = Metrics(*before["sums"])
            self._health.numbers = before["health"]

    @property
    def saved(self) -> dict:
        """What a run that goes on from here must know, in numbers; all updates are awaited."""
        return {
            "seconds": self.seconds,
            "updating": self._updating - self._since,
            "sums": list(self._sums),
            "health": self._health.numbers,
        }

    @property
    def seconds(self) -> float:
        """The run's age, the runs before a resume included."""
        return self._seconds_before + self.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since this process took the run up."""
        return time.monotonic() - self._start

    @property
    def _updating(self) -> float:
        """Seconds outside of hooks."""
        return self.elapsed - self._in_hooks

    @property
    def late(self) -> bool:
        """Whether the run's time is up."""
        return self.seconds >= self._limit

    def add_hook_time(self, seconds: float) -> None:
        """Counts time that hooks took."""
        self._in_hooks += seconds

    def record_step(self, metrics: Metrics) -> None:
        """Counts an update just handed to the device."""
        self.step += 1
        self._in_flight.append(metrics)
        # By the time an update is this old the device has others to do, so waiting costs nothing.
        self.settle(IN_FLIGHT)

    def settle(self, leave: int = 0) -> None:
        """Awaits the updates under way, but for the `leave` newest. Raises DivergedError."""
        while len(self._in_flight) > leave:
            metrics = Metrics(*map(float, jax.device_get(self._in_flight.popleft())))
            self._sums += metrics
            step = self.step - len(self._in_flight)
            expected = self._health.saw(step, metrics)
            if expected is not None:
                self._tell_spike(step, metrics.loss, expected)

    def log(self) -> None:
        """Closes the interval since the last log, and writes what it was like."""
        if self._writer:
            seconds = self._updating - self._since
            values = _describe(self._sums, seconds) | self._learning_rate()
            self._writer.write(self.step, "train", values | {"seconds": self.seconds})
        self._sums_before, self._sums = self._sums, Metrics.zero()
        self._since_before, self._since = self._since, self._updating

    def show(self) -> None:
        """The live line, over the interval under way and the one before it."""
        sums = self._sums_before + self._sums
        if not (self.progress.due() and sums.tokens):
            return
        told = _describe(sums, self._updating - self._since_before) | self._learning_rate()
        left = self.elapsed / (self.step - self._first) * (self._num_steps - self.step)
        left = max(min(left, self._limit - self.seconds), 0)
        rate = f"lr {told['learning_rate']:.2e}  " if "learning_rate" in told else ""
        self.progress.show(
            f"step {self.step:,}/{self._num_steps:,}  loss {told['loss']:.4f}  {rate}"
            f"{told['tokens_per_second']:,.0f} tokens/s  padding {told['padding']:.0%}  "
            f"{duration(left)} left"
        )

    def measured(self, values: dict, hook_seconds: dict[str, float]) -> None:
        """Tells what the hooks measured, and what share of the time each of them takes."""
        if self._writer:
            self._writer.write(self.step, "valid", values | {"seconds": self.seconds})
        shares = (f"{name} {spent / self.elapsed:.0%}" for name, spent in hook_seconds.items())
        told = (f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, int | float))
        self.progress.note(f"step {self.step:,}  {'  '.join(told)}  (time: {', '.join(shares)})")

    def _tell_spike(self, step: int, loss: float, expected: float) -> None:
        pairs = [int(pair) for pair in self._pairs_of(step)] if self._pairs_of else []
        if self._writer:
            values = {"loss": loss, "expected": expected, "pairs": pairs}
            self._writer.write(step, "spike", values)
        some = f": pairs {', '.join(map(str, pairs[:8]))}{' ..' * (len(pairs) > 8)}" * bool(pairs)
        self.progress.note(f"step {step:,}  loss {loss:.4g}, about {expected:.4g} expected{some}")

    def _learning_rate(self) -> dict[str, float]:
        # The latest update was the one with step - 1 updates before it.
        rate = self._schedule and float(self._schedule(self.step - 1))
        return {} if rate is None else {"learning_rate": rate}


def _describe(sums: Metrics, seconds: float) -> dict[str, Array | float]:
    """Real tokens are the source's and the target's, without PAD."""
    real = sums.source_tokens + sums.tokens
    return sums.to_dict() | {
        "grad_norm": sums.grad_norm_sum / max(sums.updates, 1),
        "skipped": sums.skipped,
        "tokens_per_second": real / max(seconds, 1e-9),
        "padding": 1 - real / max(sums.slots, 1),
    }
