"""What a run tells of itself: means over intervals, time, spikes, and when it has diverged."""

import io
import json

import numpy as np
import pytest

from tests.train.counting_step import count, counted, told
from train.loop import Hook
from train.loss_monitor import LossMonitor
from train.metric_logger import IN_FLIGHT
from train.metrics import MetricsWriter, read_metrics
from train.progress import Progress


class Clock:
    """Time that passes only where a test says so, in seconds."""

    now = 0.0

    def monotonic(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


def test_time_in_hooks_is_told_and_not_counted_as_training(tmp_path, monkeypatch):
    clock, stream = Clock(), io.StringIO()
    for module in "metric_logger", "loop":
        monkeypatch.setattr(f"train.{module}.time", clock)

    def update(state, batch):
        clock.pass_(0.01)
        return count(state, batch)

    with MetricsWriter(tmp_path) as writer:
        _, summary = counted(
            8,
            update,
            hooks=[Hook("bleu", 4, lambda *_: clock.pass_(0.2) or {"bleu": 33.0})],
            log_every=8,
            writer=writer,
            progress=Progress(stream),
        )
    assert summary.hook_seconds["bleu"] == pytest.approx(0.4)
    assert summary.seconds == pytest.approx(0.48)
    (train,) = [e for e in read_metrics(tmp_path) if e["split"] == "train"]
    assert train["tokens_per_second"] == pytest.approx(8 * 25 / 0.08)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 4  bleu 33  (time: bleu ") and second.startswith("step 8")


def test_train_events_are_means_over_their_interval(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        counted(
            7,
            writer=writer,
            log_every=3,
            learning_rate=lambda updates_before: 0.1 * (updates_before + 1),
        )
    events = read_metrics(tmp_path)
    assert [(e["step"], e["loss"]) for e in events] == [(3, 2.0), (6, 5.0), (7, 7.0)]
    assert [e["learning_rate"] for e in events] == pytest.approx([0.3, 0.6, 0.7])
    for event in events:
        assert event["accuracy"] == 0.5 and event["perplexity"] == pytest.approx(np.e)
        assert event["padding_fraction"] == 0.5 and event["grad_norm"] == 0.5


def test_the_live_line_tells_all_that_it_should():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    counted(
        20,
        progress=Progress(stream, every=0.0),
        learning_rate=lambda _: 7e-4,
    )
    line = stream.getvalue().split("\r\x1b[K")[11]
    for part in ("/20", "loss ", "lr 7.00e-04", "tokens/s", "padding 50%", "left"):
        assert part in line


def test_no_update_is_awaited_while_it_is_young():
    """At most IN_FLIGHT updates run unawaited, and at least that many are let run."""
    under_way, most = [0], [0]

    class Loss:
        """A number that knows when it is asked for."""

        def __init__(self):
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])

        def __array__(self, dtype=None, copy=None):
            under_way[0] -= 1
            return np.asarray(1.0, dtype or np.float32)

    def step(state, _batch):
        return state, told()._replace(loss_sum=Loss())

    counted(
        10,
        update=step,
    )
    assert (under_way[0], most[0]) == (0, IN_FLIGHT + 1)


def test_a_spike_is_written_down_with_the_pairs_it_came_from(tmp_path):
    def spiking(state, batch):
        state, _ = count(state, batch)
        step = int(state.step)
        return state, told(loss=11.0 if step == 70 else 2.0 + 0.1 * (step % 2))

    stream = io.StringIO()
    with MetricsWriter(tmp_path) as writer:
        counted(
            80,
            update=spiking,
            writer=writer,
            progress=Progress(stream),
            loss_monitor=LossMonitor(spike_threshold=8.0),
            example_ids_at=lambda step: np.arange(step, step + 3),
        )
    (spike,) = (e for e in read_metrics(tmp_path) if e["split"] == "spike")
    assert spike["step"] == 70 and spike["loss"] == pytest.approx(11)
    assert spike["expected"] == pytest.approx(2.05, abs=0.05) and spike["pairs"] == [70, 71, 72]
    assert "step 70  loss 11, about 2.0" in stream.getvalue()
    assert "expected: pairs 70, 71, 72\n" in stream.getvalue()


@pytest.mark.parametrize("at", [1, 5, 7])
def test_an_interval_that_was_broken_off_is_told_as_if_it_had_not_been(tmp_path, at):
    accounts = []

    def run(folder, first, last, resume_from=None):
        save = Hook("save", 1, lambda step, _, report: accounts.append(report["logger"]))
        with MetricsWriter(folder, first) as writer:
            counted(
                last,
                first=first,
                hooks=[save._replace(on_preemption=True)],
                log_every=4,
                writer=writer,
                stop_requested=lambda step: "SIGTERM" if step == at and first == 0 < at else "",
                resume_from=resume_from,
            )

    run(tmp_path / "broken", 0, 9)
    assert len(accounts) == at
    run(tmp_path / "broken", at, 9, json.loads(json.dumps(accounts[-1])))
    at = 0  # nothing interrupts
    run(tmp_path / "whole", 0, 9)
    timed = ("seconds", "tokens_per_second")
    broken, whole = (
        [{k: v for k, v in event.items() if k not in timed} for event in read_metrics(folder)]
        for folder in (tmp_path / "broken", tmp_path / "whole")
    )
    assert broken == whole and [e["step"] for e in whole] == [4, 8, 9]
