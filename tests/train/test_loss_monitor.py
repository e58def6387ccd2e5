"""The loss monitor: loss spikes and divergence."""

import numpy as np
import pytest

from tests.train.counting_step import make_metrics
from train.loss_monitor import DivergedError, LossMonitor

SKIPPED = make_metrics()._replace(loss_sum=0.0, tokens=0.0, updates=0.0, skipped=1.0)


def losses(count=200):
    return 3 + 0.1 * np.random.default_rng(0).normal(size=count)


def test_every_spike_is_detected_and_nothing_else():
    values = losses()
    values[[20, 120, 121, 150]] = 9.0  # too early for an expected loss at step 20
    loss_monitor, spikes = LossMonitor(spike_threshold=6.0), {}
    for step, loss in enumerate(values):
        expected = loss_monitor.update(step, make_metrics(loss))
        if expected is not None:
            spikes[step] = expected
    assert list(spikes) == [120, 121, 150]
    assert list(spikes.values()) == pytest.approx([3.0] * 3, abs=0.3)


def test_a_falling_loss_is_no_spike_and_detection_is_off_by_default():
    loss_monitor = LossMonitor(spike_threshold=6.0)
    assert all(
        loss_monitor.update(step, make_metrics(9 * 0.98**step)) is None for step in range(300)
    )
    assert all(LossMonitor().update(step, make_metrics(10.0 * step)) is None for step in range(100))


def test_a_nearly_constant_loss_has_a_relative_threshold():
    loss_monitor = LossMonitor(spike_threshold=8.0)
    steady = 1.1 + 1e-4 * losses(100)
    assert all(
        loss_monitor.update(step, make_metrics(loss)) is None for step, loss in enumerate(steady)
    )
    assert loss_monitor.update(100, make_metrics(1.12)) is None
    assert loss_monitor.update(101, make_metrics(1.2)) == pytest.approx(1.1, abs=0.01)


def test_consecutive_skipped_updates_are_a_divergence():
    loss_monitor = LossMonitor(max_consecutive_skips=3)
    for step, metrics in enumerate(
        [make_metrics(), SKIPPED, SKIPPED, make_metrics(), SKIPPED, SKIPPED], 1
    ):
        assert loss_monitor.update(step, metrics) is None
    with pytest.raises(DivergedError, match="^step 7: .* in 3 updates in a row.*learning") as error:
        loss_monitor.update(7, SKIPPED)
    assert error.value.first_skipped_step == 5 and "\n" not in str(error.value)


@pytest.mark.parametrize("resume_step", [0, 30, 61, 119])
def test_a_restored_monitor_detects_the_same_spikes(resume_step):
    values = losses(120)
    values[60:62] = 9.0
    uninterrupted, first, second = (LossMonitor(spike_threshold=4.0) for _ in range(3))
    expected = [uninterrupted.update(step, make_metrics(loss)) for step, loss in enumerate(values)]
    actual = [
        first.update(step, make_metrics(loss)) for step, loss in enumerate(values[:resume_step])
    ]
    second.state = first.state
    actual += [
        second.update(step, make_metrics(loss))
        for step, loss in enumerate(values[resume_step:], resume_step)
    ]
    assert actual == expected and expected[60] and expected[61]
