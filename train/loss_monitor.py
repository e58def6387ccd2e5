"""Loss monitor: skipped updates, loss spikes, divergence."""

import math

from train.loss import Metrics

_RATE = 0.02  # of the running mean: about the last fifty updates
_KNOWN = 50  # updates before a loss can be unusual


class DivergedError(ValueError):
    """A run that has no finite gradient any more; one line that says since when, and what helps.

    `first_skipped_step` is that of the first of the updates that were skipped in a row.
    """

    def __init__(self, message: str, first_skipped_step: int = 0):
        super().__init__(message)
        self.first_skipped_step = first_skipped_step


class LossMonitor:
    """Call `update` for every update in order.

    `max_consecutive_skips` updates skipped in a row are a divergence. A loss of more than
    `spike_threshold` standard deviations above the running mean is a spike (0: none is looked for).
    Where losses hardly vary any more, a hundredth of the mean counts as one.
    """

    def __init__(self, max_consecutive_skips: int = 20, spike_threshold: float = 0.0):
        self._max_consecutive_skips, self._spike_threshold = max_consecutive_skips, spike_threshold
        self._skipped, self._seen, self._mean, self._variance = 0, 0, 0.0, 0.0

    @property
    def state(self) -> list[float]:
        """All that it knows, in numbers for a checkpoint: a resumed run judges as it would have."""
        return [self._skipped, self._seen, self._mean, self._variance]

    @state.setter
    def state(self, state: list[float]) -> None:
        skipped, seen, self._mean, self._variance = state
        self._skipped, self._seen = int(skipped), int(seen)

    def update(self, step: int, metrics: Metrics) -> float | None:
        """The loss that was expected, if that of update `step` is a spike. Raises DivergedError."""
        if metrics.skipped:
            self._skipped += 1
            if self._skipped >= self._max_consecutive_skips:
                raise DivergedError(
                    f"step {step}: no finite loss and gradient in {self._skipped} updates in a "
                    "row: training diverged; lower optimizer.learning_rate, raise "
                    "optimizer.warmup_steps or set optimizer.clip_norm",
                    first_skipped_step=step - self._skipped + 1,
                )
            return None
        self._skipped = 0
        if not metrics.tokens:
            return None
        expected, over = self._mean, float(metrics.loss) - self._mean
        allowed = self._spike_threshold * max(math.sqrt(self._variance), self._mean / 100)
        spike = bool(self._spike_threshold) and self._seen >= _KNOWN and over > allowed
        rate = max(_RATE, 1 / (self._seen + 1))
        over = min(over, allowed) if spike else over  # or one spike would hide the next
        self._mean += rate * over
        self._variance = (1 - rate) * (self._variance + rate * over * over)
        self._seen += 1
        return expected if spike else None
