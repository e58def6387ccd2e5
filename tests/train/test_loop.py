"""The training loop: hooks, stopping, validation and bit-identical resume."""

import itertools
import time

import jax
import numpy as np
import pytest

from data.batch import PAD, Batch
from tests.train.counting_step import (
    count_update,
    fit_counting,
    initial_state,
    make_metrics,
    quiet_progress,
)
from train.checkpoint import CheckpointManager
from train.loop import Hook, checkpoint_hook, fit, validation_hook
from train.metrics import MetricsWriter, read_metrics
from train.state import abstract_state


def test_hooks_are_called_at_their_steps_and_at_the_end():
    calls = []
    hooks = [
        Hook("two", 2, lambda step, state, _: calls.append(("two", step, int(state.step)))),
        Hook("both", (3, 4), lambda step, state, _: calls.append(("both", step, int(state.step)))),
        Hook("end", 0, lambda step, state, _: calls.append(("end", step, int(state.step)))),
    ]
    state, summary = fit_counting(
        7,
        hooks=hooks,
    )
    assert calls == [
        (name, step, step)
        for name, step in [
            *[("two", 2), ("both", 3), ("two", 4), ("both", 4), ("two", 6), ("both", 6)],
            *[("two", 7), ("both", 7), ("end", 7)],
        ]
    ]
    assert state.step == summary.step == 7 and summary.stopped_by == "num_steps"


def test_hooks_see_the_metrics_of_earlier_hooks(tmp_path):
    reports = []
    hooks = [
        Hook("loss", 2, lambda step, *_: {"loss": float(step)}),
        Hook("bleu", 4, lambda step, *_: {"bleu": 10.0 * step}),
        Hook("eval", 2, lambda step, _state, report: reports.append((step, dict(report)))),
    ]
    with MetricsWriter(tmp_path) as writer:
        _, summary = fit_counting(
            6,
            hooks=hooks,
            writer=writer,
            resume_from={"elapsed_seconds": 100.0},
        )
    assert all(report.pop("logger")["elapsed_seconds"] >= 100 for _, report in reports)
    assert reports == [
        (2, {"loss": 2.0}),
        (4, {"loss": 4.0, "bleu": 40.0}),
        (6, {"loss": 6.0, "bleu": 60.0}),
    ]
    assert summary.report == {"loss": 6.0, "bleu": 60.0} and summary.seconds >= 100
    valid = [e for e in read_metrics(tmp_path) if e["event"] == "valid"]
    assert [(e["step"], e["loss"], e.get("bleu")) for e in valid] == [
        (2, 2.0, None),
        (4, 4.0, 40.0),
        (6, 6.0, 60.0),
    ]


def test_max_minutes_stops_the_run_after_a_last_call_of_every_hook():
    hook_steps = []

    def slow(state, batch):
        time.sleep(0.02)
        return count_update(state, batch)

    state, summary = fit_counting(
        10_000,
        update=slow,
        hooks=[Hook("eval", 1000, lambda step, *_: hook_steps.append(step))],
        max_minutes=1.0,
        resume_from={"elapsed_seconds": 59.9},
    )
    assert summary.stopped_by == "max_minutes" and 1 <= summary.step < 20
    assert hook_steps == [summary.step] == [int(state.step)]


def test_it_stops_when_the_batches_end():
    _, summary = fit(
        initial_state(), count_update, [()] * 4, num_steps=9, progress=quiet_progress()
    )
    assert (summary.step, summary.stopped_by) == (4, "batches")


def test_a_finished_run_calls_neither_updates_nor_hooks():
    hooks = [Hook("eval", 1, lambda *_: pytest.fail("called"))]
    state, summary = fit_counting(
        9,
        start_step=9,
        hooks=hooks,
    )
    assert state.step == summary.step == 9


def test_validation_averages_all_batches_with_the_eval_weights():
    def evaluate(weights, batch):
        assert weights == "average"
        return make_metrics(loss=batch, tokens=10.0 * batch)

    state = initial_state()._replace(ema="average")
    hook = validation_hook(evaluate, lambda: iter([1.0, 3.0]), every=5)
    metrics = hook.run(5, state, {})
    assert metrics["loss"] == pytest.approx((1 * 10 + 3 * 30) / 40)
    assert set(metrics) == {"loss", "nll", "accuracy", "perplexity"}
    assert hook.due(10) and not hook.due(11)


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tiny, batch_of, bits, tmp_path):
    task = tiny((8, 1, 1))
    batches = lambda step: (batch_of(i) for i in itertools.count(step))  # noqa: E731
    losses = {}

    def recording_step(state, batch):
        step = int(state.step)
        state, metrics = task.step(state, batch)
        losses.setdefault(step, []).append(np.asarray(metrics.loss_sum))
        return state, metrics

    uninterrupted, _ = fit(
        task.fresh(), recording_step, batches(0), num_steps=7, progress=quiet_progress()
    )
    with CheckpointManager(tmp_path) as checkpoints:
        save = checkpoint_hook(checkpoints, {"vocabulary": "v"}, every=4)
        fit(
            task.fresh(),
            recording_step,
            batches(0),
            num_steps=4,
            hooks=[save],
            progress=quiet_progress(),
        )
    with CheckpointManager(tmp_path) as checkpoints:
        abstract = abstract_state(task.model, task.tx, task.mesh, ema=True)
        state = checkpoints.restore("last", abstract)
        meta = checkpoints.meta("last")
        assert meta["vocabulary"] == "v" and meta["elapsed_seconds"] > 0
        resumed, _ = fit(state, recording_step, batches(4), num_steps=7, progress=quiet_progress())
    assert [len(values) for values in losses.values()] == [2] * 7
    for first, second in losses.values():
        np.testing.assert_array_equal(first, second)
    assert len({float(first) for first, _ in losses.values()}) == 7
    assert_same(jax.tree.leaves(bits(resumed)), jax.tree.leaves(bits(uninterrupted)))


@pytest.mark.slow
def test_checkpoints_are_saved_with_the_metrics_of_their_step(tiny, batch_of, tmp_path):
    task = tiny((8, 1, 1))
    bleu = {2: 30.0, 4: 50.0, 6: 40.0}
    with CheckpointManager(tmp_path, keep=1) as checkpoints:
        hooks = [
            Hook("bleu", 2, lambda step, *_: {"bleu": bleu[step]}),
            checkpoint_hook(checkpoints, {}, every=(2, 3)),
        ]
        batches = itertools.repeat(batch_of(0))
        fit(task.fresh(), task.step, batches, num_steps=6, hooks=hooks, progress=quiet_progress())
        checkpoints.wait()
        assert (checkpoints.steps(), checkpoints.best_step()) == ([4, 6], 4)
        assert checkpoints.metrics("best") == {"bleu": 50.0}


@pytest.mark.slow
def test_a_tiny_model_learns_to_copy(tiny):
    task = tiny(None, dropout=0.0)
    random = np.random.default_rng(0)
    losses = []

    def batches():
        while True:
            ids = random.integers(4, 12, (16, 7)).astype(np.int32)
            ids[::3, 3:] = PAD
            yield Batch(ids, ids[:, :6])

    def step(state, batch):
        state, metrics = task.step(state, batch)
        losses.append(float(metrics.nll))
        return state, metrics

    fit(task.fresh(), step, batches(), num_steps=150, progress=quiet_progress())
    assert losses[0] > 2.5 and np.mean(losses[-10:]) < 1.6
