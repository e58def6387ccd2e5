"""Loss monitor: skipped updates, loss spikes, divergence."""

import math

from train.loss import Metrics

_RATE = 0.02  # update rate of the running mean: about the last fifty updates
_MIN_UPDATES = 50  # updates before spikes are detected


class DivergedError(ValueError):
    """Training diverged: gradients are not finite; one line with the steps and a remedy.

    `first_skipped_step` is the first step of the run of skipped updates.
    """

    def __init__(self, message: str, first_skipped_step: int = 0):
        super().__init__(message)
        self.first_skipped_step = first_skipped_step


class LossMonitor:
    """Detect divergence and loss spikes; call `update` for every update in order.

    Training has diverged after `max_consecutive_skips` skipped updates in a row. A loss that is
    more than `spike_threshold` standard deviations above the running mean is a spike (0: no
    detection). The standard deviation counts as at least a hundredth of the mean.
    """

    def __init__(self, max_consecutive_skips: int = 20, spike_threshold: float = 0.0):
        self._max_consecutive_skips, self._spike_threshold = max_consecutive_skips, spike_threshold
        self._skipped, self._num_updates, self._mean, self._variance = 0, 0, 0.0, 0.0

    @property
    def state(self) -> list[float]:
        """The state as numbers for a checkpoint, so that a resumed run continues exactly."""
        return [self._skipped, self._num_updates, self._mean, self._variance]

    @state.setter
    def state(self, state: list[float]) -> None:
        skipped, num_updates, self._mean, self._variance = state
        self._skipped, self._num_updates = int(skipped), int(num_updates)

    def update(self, step: int, metrics: Metrics) -> float | None:
        """Return the expected loss if update `step` is a spike, else None. Raises DivergedError."""
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
        expected, excess = self._mean, float(metrics.loss) - self._mean
        threshold = self._spike_threshold * max(math.sqrt(self._variance), self._mean / 100)
        ready = bool(self._spike_threshold) and self._num_updates >= _MIN_UPDATES
        spike = ready and excess > threshold
        rate = max(_RATE, 1 / (self._num_updates + 1))
        if spike:  # otherwise one spike would hide the next
            excess = min(excess, threshold)
        self._mean += rate * excess
        self._variance = (1 - rate) * (self._variance + rate * excess * excess)
        self._num_updates += 1
        return expected if spike else None
