"""When a loss is unusual, and when a run has diverged."""

import numpy as np
import pytest

from tests.train.counting_step import told
from train.loss_monitor import DivergedError, LossMonitor

SKIPPED = told()._replace(loss_sum=0.0, tokens=0.0, updates=0.0, skipped=1.0)


def losses(count=200):
    return 3 + 0.1 * np.random.default_rng(0).normal(size=count)


def test_a_spike_is_found_again_and_again_and_nothing_else_is():
    values = losses()
    values[[20, 120, 121, 150]] = 9.0  # at the first nobody knows yet what is usual
    loss_monitor, found = LossMonitor(spike_threshold=6.0), {}
    for step, loss in enumerate(values):
        expected = loss_monitor.update(step, told(loss))
        if expected is not None:
            found[step] = expected
    assert list(found) == [120, 121, 150]
    assert list(found.values()) == pytest.approx([3.0] * 3, abs=0.3)


def test_a_falling_loss_is_no_spike_and_none_is_looked_for_unless_asked():
    loss_monitor = LossMonitor(spike_threshold=6.0)
    assert all(loss_monitor.update(step, told(9 * 0.98**step)) is None for step in range(300))
    assert all(LossMonitor().update(step, told(10.0 * step)) is None for step in range(100))


def test_a_loss_that_hardly_varies_spikes_by_a_share_of_itself():
    loss_monitor = LossMonitor(spike_threshold=8.0)
    steady = 1.1 + 1e-4 * losses(100)
    assert all(loss_monitor.update(step, told(loss)) is None for step, loss in enumerate(steady))
    assert loss_monitor.update(100, told(1.12)) is None
    assert loss_monitor.update(101, told(1.2)) == pytest.approx(1.1, abs=0.01)


def test_skipped_updates_in_a_row_are_a_divergence():
    loss_monitor = LossMonitor(max_consecutive_skips=3)
    for step, metrics in enumerate([told(), SKIPPED, SKIPPED, told(), SKIPPED, SKIPPED], 1):
        assert loss_monitor.update(step, metrics) is None
    with pytest.raises(DivergedError, match="^step 7: .* in 3 updates in a row.*learning") as error:
        loss_monitor.update(7, SKIPPED)
    assert error.value.first_skipped_step == 5 and "\n" not in str(error.value)


@pytest.mark.parametrize("at", [0, 30, 61, 119])
def test_it_judges_after_a_break_as_it_would_have(at):
    values = losses(120)
    values[60:62] = 9.0
    whole, first, second = (LossMonitor(spike_threshold=4.0) for _ in range(3))
    expected = [whole.update(step, told(loss)) for step, loss in enumerate(values)]
    found = [first.update(step, told(loss)) for step, loss in enumerate(values[:at])]
    second.state = first.state
    found += [second.update(step, told(loss)) for step, loss in enumerate(values[at:], at)]
    assert found == expected and expected[60] and expected[61]
