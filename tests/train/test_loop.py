"""The loop: who is called when, what is told, and that a break in the middle leaves no trace."""

import io
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data.batch import PAD, Batch
from train.checkpoint import Checkpoints
from train.loop import IN_FLIGHT, DivergedError, Hook, checkpoint_hook, fit, validation_hook
from train.loss import Metrics
from train.metrics import MetricsWriter, read_metrics
from train.progress import Progress
from train.state import TrainState, abstract_state


@pytest.fixture
def start():
    """A state of nothing but a step."""

    def make(step=0):
        return TrainState(jnp.int32(step), {}, optax.identity().init({}), None)

    return make


def told(loss=2.0, tokens=10.0):
    return Metrics(*map(np.float32, (loss * tokens, tokens, 5.0, tokens, 15.0, 50.0, 1.0, 0.5)))


def count(state, _batch):
    """An update that only counts; the loss is the step."""
    state = state._replace(step=state.step + 1)
    return state, told(loss=float(state.step))


def quiet():
    return Progress(io.StringIO())


def test_hooks_are_called_at_their_steps_and_at_the_end(start):
    calls = []
    hooks = [
        Hook("two", 2, lambda step, state, _: calls.append(("two", step, int(state.step)))),
        Hook("both", (3, 4), lambda step, state, _: calls.append(("both", step, int(state.step)))),
        Hook("end", 0, lambda step, state, _: calls.append(("end", step, int(state.step)))),
    ]
    state, summary = fit(
        start(), count, itertools.repeat(()), num_steps=7, hooks=hooks, progress=quiet()
    )
    assert calls == [
        (name, step, step)
        for name, step in [
            *[("two", 2), ("both", 3), ("two", 4), ("both", 4), ("two", 6), ("both", 6)],
            *[("two", 7), ("both", 7), ("end", 7)],
        ]
    ]
    assert state.step == summary.step == 7 and summary.stopped_by == "num_steps"


def test_hooks_see_what_those_before_them_measured_at_that_step(start, tmp_path):
    seen = []
    hooks = [
        Hook("loss", 2, lambda step, *_: {"loss": float(step)}),
        Hook("bleu", 4, lambda step, *_: {"bleu": 10.0 * step}),
        Hook("look", 2, lambda step, _state, report: seen.append((step, dict(report)))),
    ]
    with MetricsWriter(tmp_path) as writer:
        _, summary = fit(
            start(),
            count,
            itertools.repeat(()),
            num_steps=6,
            hooks=hooks,
            writer=writer,
            progress=quiet(),
            seconds_before=100.0,
        )
    assert all(report.pop("seconds") >= 100 for _, report in seen)
    assert seen == [
        (2, {"loss": 2.0}),
        (4, {"loss": 4.0, "bleu": 40.0}),
        (6, {"loss": 6.0, "bleu": 60.0}),
    ]
    assert summary.report == {"loss": 6.0, "bleu": 60.0} and summary.seconds >= 100
    valid = [e for e in read_metrics(tmp_path) if e["split"] == "valid"]
    assert [(e["step"], e["loss"], e.get("bleu")) for e in valid] == [
        (2, 2.0, None),
        (4, 4.0, 40.0),
        (6, 6.0, 60.0),
    ]


def test_time_in_hooks_is_told_and_not_counted_as_training(start, tmp_path):
    stream = io.StringIO()
    with MetricsWriter(tmp_path) as writer:
        _, summary = fit(
            start(),
            count,
            itertools.repeat(()),
            num_steps=8,
            hooks=[Hook("bleu", 4, lambda *_: time.sleep(0.2) or {"bleu": 33.0})],
            log_every=8,
            writer=writer,
            progress=Progress(stream),
        )
    assert 0.4 <= summary.hook_seconds["bleu"] <= summary.seconds
    (train,) = [e for e in read_metrics(tmp_path) if e["split"] == "train"]
    assert train["tokens_per_second"] > 8 * 25 / 0.15  # hooks took 0.2 s by then
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 4  bleu 33  (time: bleu ") and second.startswith("step 8")


def test_train_events_are_means_over_their_interval(start, tmp_path):
    with MetricsWriter(tmp_path) as writer:
        fit(
            start(),
            count,
            itertools.repeat(()),
            num_steps=7,
            writer=writer,
            progress=quiet(),
            log_every=3,
            schedule=lambda updates_before: 0.1 * (updates_before + 1),
        )
    events = read_metrics(tmp_path)
    assert [(e["step"], e["loss"]) for e in events] == [(3, 2.0), (6, 5.0), (7, 7.0)]
    assert [e["learning_rate"] for e in events] == pytest.approx([0.3, 0.6, 0.7])
    for event in events:
        assert event["accuracy"] == 0.5 and event["perplexity"] == pytest.approx(np.e)
        assert event["padding"] == 0.5 and event["grad_norm"] == 0.5


def test_the_live_line_tells_all_that_it_should(start):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    fit(
        start(),
        count,
        itertools.repeat(()),
        num_steps=20,
        progress=Progress(stream, every=0.0),
        schedule=lambda _: 7e-4,
    )
    line = stream.getvalue().split("\r\x1b[K")[11]
    for part in ("/20", "loss ", "lr 7.00e-04", "tokens/s", "padding 50%", "left"):
        assert part in line


def test_no_update_is_awaited_while_it_is_young(start):
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

    fit(start(), step, itertools.repeat(()), num_steps=10, progress=quiet())
    assert (under_way[0], most[0]) == (0, IN_FLIGHT + 1)


def test_it_stops_by_the_clock_and_shows_the_last_state_to_every_hook(start):
    seen = []

    def slow(state, batch):
        time.sleep(0.02)
        return count(state, batch)

    state, summary = fit(
        start(),
        slow,
        itertools.repeat(()),
        num_steps=10_000,
        hooks=[Hook("look", 1000, lambda step, *_: seen.append(step))],
        max_minutes=1.0,
        seconds_before=59.9,
        progress=quiet(),
    )
    assert summary.stopped_by == "max_minutes" and 1 <= summary.step < 20
    assert seen == [summary.step] == [int(state.step)]


def test_it_stops_where_batches_end(start):
    _, summary = fit(start(), count, [()] * 4, num_steps=9, progress=quiet())
    assert (summary.step, summary.stopped_by) == (4, "batches")


def test_a_run_that_is_over_trains_and_calls_nothing(start):
    hooks = [Hook("look", 1, lambda *_: pytest.fail("called"))]
    state, summary = fit(
        start(9), count, itertools.repeat(()), num_steps=9, hooks=hooks, progress=quiet()
    )
    assert state.step == summary.step == 9


@pytest.mark.parametrize("field", ["loss_sum", "grad_norm_sum"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_stops_it_before_anything_is_saved(start, field, value):
    saved = []

    def diverge(state, batch):
        state, metrics = count(state, batch)
        return state, metrics._replace(**{field: np.float32(value)}) if state.step == 5 else metrics

    hooks = [Hook("save", 2, lambda step, *_: saved.append(step))]
    with pytest.raises(DivergedError, match="^step 5: .*learning_rate") as error:
        fit(start(), diverge, itertools.repeat(()), num_steps=9, hooks=hooks, progress=quiet())
    assert saved == [2, 4] and "\n" not in str(error.value)


def test_validation_is_over_all_batches_and_with_the_weights_for_use(start):
    def evaluate(weights, batch):
        assert weights == "average"
        return told(loss=batch, tokens=10.0 * batch)

    state = start()._replace(ema="average")
    hook = validation_hook(evaluate, lambda: iter([1.0, 3.0]), every=5)
    found = hook.run(5, state, {})
    assert found["loss"] == pytest.approx((1 * 10 + 3 * 30) / 40)
    assert set(found) == {"loss", "nll", "accuracy", "perplexity"}
    assert hook.due(10) and not hook.due(11)


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tiny, batch_of, bits, tmp_path):
    task = tiny((8, 1, 1))
    batches = lambda step: (batch_of(i) for i in itertools.count(step))  # noqa: E731
    losses = {}

    def recording(state, batch):
        step = int(state.step)
        state, metrics = task.step(state, batch)
        losses.setdefault(step, []).append(np.asarray(metrics.loss_sum))
        return state, metrics

    whole, _ = fit(task.fresh(), recording, batches(0), num_steps=7, progress=quiet())
    with Checkpoints(tmp_path) as checkpoints:
        save = checkpoint_hook(checkpoints, {"vocabulary": "v"}, every=4)
        fit(task.fresh(), recording, batches(0), num_steps=4, hooks=[save], progress=quiet())
    with Checkpoints(tmp_path) as checkpoints:
        abstract = abstract_state(task.model, task.tx, task.mesh, ema=True)
        state = checkpoints.restore("last", abstract)
        meta = checkpoints.meta("last")
        assert meta["vocabulary"] == "v" and meta["seconds"] > 0
        resumed, _ = fit(state, recording, batches(4), num_steps=7, progress=quiet())
    assert [len(each) for each in losses.values()] == [2] * 7
    for once, again in losses.values():
        np.testing.assert_array_equal(once, again)
    assert len({float(once) for once, _ in losses.values()}) == 7
    same(jax.tree.leaves(bits(resumed)), jax.tree.leaves(bits(whole)))


def test_checkpoints_are_saved_with_the_bleu_of_their_step(tiny, batch_of, tmp_path):
    task = tiny((8, 1, 1))
    bleu = {2: 30.0, 4: 50.0, 6: 40.0}
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        hooks = [
            Hook("bleu", 2, lambda step, *_: {"bleu": bleu[step]}),
            checkpoint_hook(checkpoints, {}, every=(2, 3)),
        ]
        batches = itertools.repeat(batch_of(0))
        fit(task.fresh(), task.step, batches, num_steps=6, hooks=hooks, progress=quiet())
        checkpoints.wait()
        assert (checkpoints.steps(), checkpoints.best_step()) == ([4, 6], 4)
        assert checkpoints.metrics("best") == {"bleu": 50.0}


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

    fit(task.fresh(), step, batches(), num_steps=150, progress=quiet())
    assert losses[0] > 2.5 and np.mean(losses[-10:]) < 1.6
