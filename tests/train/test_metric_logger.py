"""The metric logger: interval means, timing, progress line and loss spikes."""

import io
import json

import numpy as np
import pytest

from tests.train.counting_step import count_update, fit_counting, make_metrics
from train.loop import Hook
from train.loss_monitor import LossMonitor
from train.metric_logger import IN_FLIGHT
from train.metrics import MetricsWriter, read_metrics
from train.progress import Progress


class Clock:
    """A fake clock, in seconds."""

    now = 0.0

    def monotonic(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


def test_hook_time_is_reported_but_not_counted_as_training(tmp_path, monkeypatch):
    clock, stream = Clock(), io.StringIO()
    for module in "metric_logger", "loop":
        monkeypatch.setattr(f"train.{module}.time", clock)

    def update(state, batch):
        clock.advance(0.01)
        return count_update(state, batch)

    with MetricsWriter(tmp_path) as writer:
        _, summary = fit_counting(
            8,
            update,
            hooks=[Hook("bleu", 4, lambda *_: clock.advance(0.2) or {"bleu": 33.0})],
            log_every=8,
            writer=writer,
            progress=Progress(stream),
        )
    assert summary.hook_seconds["bleu"] == pytest.approx(0.4)
    assert summary.seconds == pytest.approx(0.48)
    (train,) = [e for e in read_metrics(tmp_path) if e["event"] == "train"]
    assert train["tokens_per_second"] == pytest.approx(8 * 25 / 0.08)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 4  bleu 33  (time: bleu ") and second.startswith("step 8")


def test_train_metrics_are_means_over_their_interval(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        fit_counting(
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


def test_the_progress_line_has_all_values():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    fit_counting(
        20,
        progress=Progress(stream, every=0.0),
        learning_rate=lambda _: 7e-4,
    )
    line = stream.getvalue().split("\r\x1b[K")[11]
    for text in ("/20", "loss ", "lr 7.00e-04", "tokens/s", "padding 50%", "left"):
        assert text in line


def test_updates_are_dispatched_ahead():
    """Exactly IN_FLIGHT updates are in flight, without waiting for their metrics."""
    in_flight, max_in_flight = [0], [0]

    class Loss:
        """A number that records when it is read."""

        def __init__(self):
            in_flight[0] += 1
            max_in_flight[0] = max(max_in_flight[0], in_flight[0])

        def __array__(self, dtype=None, copy=None):
            in_flight[0] -= 1
            return np.asarray(1.0, dtype or np.float32)

    def step(state, _batch):
        return state, make_metrics()._replace(loss_sum=Loss())

    fit_counting(
        10,
        update=step,
    )
    assert (in_flight[0], max_in_flight[0]) == (0, IN_FLIGHT + 1)


def test_a_loss_spike_is_logged_with_its_pairs(tmp_path):
    def spiking(state, batch):
        state, _ = count_update(state, batch)
        step = int(state.step)
        return state, make_metrics(loss=11.0 if step == 70 else 2.0 + 0.1 * (step % 2))

    stream = io.StringIO()
    with MetricsWriter(tmp_path) as writer:
        fit_counting(
            80,
            update=spiking,
            writer=writer,
            progress=Progress(stream),
            loss_monitor=LossMonitor(spike_threshold=8.0),
            example_ids_at=lambda step: np.arange(step, step + 3),
        )
    (spike,) = (e for e in read_metrics(tmp_path) if e["event"] == "spike")
    assert spike["step"] == 70 and spike["loss"] == pytest.approx(11)
    assert spike["expected"] == pytest.approx(2.05, abs=0.05) and spike["pairs"] == [70, 71, 72]
    assert "step 70  loss 11, about 2.0" in stream.getvalue()
    assert "expected: pairs 70, 71, 72\n" in stream.getvalue()


@pytest.mark.parametrize("stop_step", [1, 5, 7])
def test_an_interrupted_interval_is_logged_like_an_uninterrupted_one(tmp_path, stop_step):
    logger_states = []

    def run(folder, start_step, num_steps, resume_from=None):
        save = Hook("save", 1, lambda step, _, report: logger_states.append(report["logger"]))
        with MetricsWriter(folder, start_step) as writer:
            fit_counting(
                num_steps,
                start_step=start_step,
                hooks=[save._replace(on_preemption=True)],
                log_every=4,
                writer=writer,
                stop_requested=lambda step: (
                    "SIGTERM" if step == stop_step and start_step == 0 < stop_step else ""
                ),
                resume_from=resume_from,
            )

    run(tmp_path / "broken", 0, 9)
    assert len(logger_states) == stop_step
    run(tmp_path / "broken", stop_step, 9, json.loads(json.dumps(logger_states[-1])))
    stop_step = 0  # no preemption
    run(tmp_path / "whole", 0, 9)
    timed = ("elapsed_seconds", "tokens_per_second")
    resumed, uninterrupted = (
        [{k: v for k, v in event.items() if k not in timed} for event in read_metrics(folder)]
        for folder in (tmp_path / "broken", tmp_path / "whole")
    )
    assert resumed == uninterrupted and [e["step"] for e in uninterrupted] == [4, 8, 9]
