"""Interrupted runs resume bit-identically with the same command."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.corruption import arrays, events
from experiments import restore, run_context, trainer, translation_data, workdir, workdir_lock
from experiments.trainer import train
from tests.experiments.commands import (
    ROOT,
    environment,
    error_line,
    heed,
    small_experiment,
    train_args,
)
from train.checkpoint import CorruptCheckpointError
from train.loss import Metrics
from train.loss_monitor import DivergedError
from train.metrics import MetricsWriter, read_metrics

pytestmark = pytest.mark.slow


def assert_same_run(left, right):
    assert events(left) == events(right)
    last = [arrays(folder / "checkpoints", "last", folder) for folder in (left, right)]
    assert len(last[0]) > 50
    for x, y in zip(*last, strict=True):
        np.testing.assert_array_equal(x, y)


def start_training(*args):
    command = [sys.executable, "-m", "experiments.train", *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment(), cwd=ROOT)


def wait_until(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("the condition was not met within a minute")


def has_event(folder, step):
    return lambda: (
        (folder / "metrics.jsonl").exists() and any(e["step"] >= step for e in read_metrics(folder))
    )


@pytest.mark.parametrize("when", ["early", "saving", "late"])
def test_a_killed_run_resumes_bit_for_bit(run, text, tmp_path, when):
    uninterrupted, *_ = run
    folder = tmp_path / "run"
    args = train_args(text, folder, "train.checkpoint_every=4")
    moments = {
        "early": has_event(folder, 5),
        "saving": lambda: any((folder / "checkpoints").glob("*tmp*")),
        "late": lambda: (folder / "checkpoints" / "28").exists(),
    }
    process = start_training(*args)
    wait_until(moments[when])
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    code, _, err = heed("train", *args)
    assert code == 0, err
    assert_same_run(folder, uninterrupted)


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_a_signal_saves_a_checkpoint_and_the_run_resumes_bit_for_bit(
    run, text, tmp_path, name, status
):
    uninterrupted, *_ = run
    folder = tmp_path / "run"
    args = train_args(text, folder)
    process = start_training(*args)
    wait_until(has_event(folder, 5))
    process.send_signal(getattr(signal, name))
    out, err = process.communicate()
    assert process.returncode == status, err.decode()
    last = json.loads(out)
    assert last["stopped_by"] == name and 5 <= last["step"] < 30
    saved = f"checkpoint saved at step {last['step']}; run the same command to resume"
    lines = [line for line in err.decode().splitlines() if line.startswith("heed: ")]
    assert lines == [f"heed: interrupted: {saved}"] * (name == "SIGINT")
    assert (folder / "checkpoints" / str(last["step"])).exists()
    code, _, err = heed("train", *args)
    assert code == 0 and f"resuming at step {last['step']}" in err, err
    assert_same_run(folder, uninterrupted)


SIGNAL_AT = """if True:
    import os, signal, sys
    from experiments import after_training, cli, setup, train, trainer
    name, signum = sys.argv.pop(1), int(sys.argv.pop(1))
    modules = dict(build=setup, restore_or_init=trainer, load_best=after_training)
    module = modules[name]
    real = getattr(module, name)

    def terminated(*args, **options):
        os.kill(os.getpid(), signum)
        return real(*args, **options)

    setattr(module, name, terminated)
    cli.run(train.main, ["train", *sys.argv[1:]])
"""


def test_a_signal_before_and_after_training_ends_the_run_immediately(run, text, tmp_path):
    """While reading text, after writing settings, and while testing the best checkpoint."""
    uninterrupted, *_ = run
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    new = tmp_path / "no"
    cases = ("build", None, new), ("restore_or_init", None, new), ("load_best", 30, folder)
    for (name, step, target), signum in itertools.product(cases, (signal.SIGTERM, signal.SIGINT)):
        args = name, str(int(signum)), *train_args(text, target)
        command = [sys.executable, "-c", SIGNAL_AT, *args]
        process = subprocess.run(command, capture_output=True, env=environment(), cwd=ROOT)
        if signum == signal.SIGTERM or step:
            last = json.loads(process.stdout)
            assert (last["step"], last["stopped_by"]) == (step, signum.name)
        status = 0 if signum == signal.SIGTERM else 130
        assert process.returncode == status, process.stderr.decode()
        assert process.stderr.count(b"heed: interrupted") == bool(status)
    assert not new.exists()
    assert_same_run(folder, uninterrupted)


def test_a_corrupt_latest_checkpoint_falls_back_to_the_previous_one(run, text, tmp_path):
    uninterrupted, *_ = run
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    (data_file,) = sorted((folder / "checkpoints/30/params").rglob("d/*"))[:1]
    content = bytearray(data_file.read_bytes())
    content[len(content) // 2] ^= 1
    data_file.write_bytes(content)
    code, _, err = heed("train", *train_args(text, folder))
    assert code == 0 and "resuming at step 15" in err, err
    assert "warning: " in err and "step 30 is corrupt" in err
    assert_same_run(folder, uninterrupted)


def test_a_checkpoint_with_corrupt_metrics_is_not_the_best(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    best = workdir.load(folder).step
    assert capsys.readouterr().err == ""
    (folder / f"checkpoints/{best}/metrics/metrics").write_text("[]")
    loaded = workdir.load(folder)
    line = f"the metrics of step {best} are missing or corrupt, so best is chosen without it"
    assert loaded.step == ({15, 30} - {best}).pop() and line in capsys.readouterr().err


def test_a_grace_period_that_is_too_short_is_an_error(text, tmp_path):
    process = start_training(*train_args(text, tmp_path / "run", "train.grace_seconds=0.0"))
    wait_until(has_event(tmp_path / "run", 5))
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 1 and b"raise --config.train.grace_seconds" in err


def test_two_runs_in_one_workdir_are_rejected(run, text):
    folder, *_ = run
    with workdir_lock.lock(folder):
        line = error_line("train", *train_args(text, folder))
    assert "is in use: process" in line and "wait, or choose another folder" in line


def test_a_diverged_run_rolls_back_and_reshuffles(text, tmp_path, monkeypatch):
    calls, always_diverge, make_train_step = [], [], run_context.make_train_step
    schedules, batches = [], translation_data.train_batches

    def record_batches(pairs, schedule, step, **options):
        schedules.append((step, schedule))
        return batches(pairs, schedule, step, **options)

    monkeypatch.setattr(translation_data, "train_batches", record_batches)

    def diverging(*args, **options):
        step = make_train_step(*args, **options)

        def call(state, batch):
            calls.append(int(state.step))
            if not always_diverge and not 17 < len(calls) <= 22:
                return step(state, batch)
            return state._replace(step=state.step + 1), Metrics.zero()._replace(skipped=1.0)

        call.traced_shapes = step.traced_shapes
        return call

    monkeypatch.setattr(run_context, "make_train_step", diverging)
    result = train(
        small_experiment(text, max_consecutive_skips=5, max_rollbacks=1), tmp_path / "run"
    )
    assert result["step"] == 30 and calls.count(15) == 2
    all_events = events(tmp_path / "run")
    assert {"step": 15, "event": "rollback", "rollbacks": 1} in all_events
    assert [e["step"] for e in all_events if e["event"] == "train"] == [5, 10, 15, 20, 25, 30]
    (start, schedule), (second_start, second_schedule) = schedules
    assert (start, second_start) == (0, 15)
    epoch = range(2 * schedule.batches_per_epoch, 3 * schedule.batches_per_epoch)
    pairs = [
        [schedule[step].pairs.tolist() for step in epoch]
        for schedule in (schedule, second_schedule)
    ]
    assert pairs[0] != pairs[1]  # in another order, with the same pairs per epoch
    assert [sorted(itertools.chain.from_iterable(step_pairs)) for step_pairs in pairs] == [
        [*range(120)]
    ] * 2

    always_diverge.append(True)  # at most max_rollbacks times
    with pytest.raises(DivergedError):
        train(
            small_experiment(text, max_consecutive_skips=5, max_rollbacks=1, num_steps=40),
            tmp_path / "run",
        )
    assert [e["rollbacks"] for e in events(tmp_path / "run") if e["event"] == "rollback"] == [1]


class FakeCheckpoints:
    """Fake checkpoints of these steps."""

    def __init__(self, steps, corrupt=()):
        self.remaining, self.corrupt = list(steps), corrupt

    def wait(self):
        pass

    def steps(self):
        return self.remaining

    def restore_latest_intact(self, _abstract, among):
        for step in sorted(set(among) - set(self.corrupt), reverse=True):
            return SimpleNamespace(step=step), {"step": step}, []
        raise CorruptCheckpointError(f"{among} are corrupt")

    def delete_after(self, step):
        self.remaining = [s for s in self.remaining if s <= step]


@pytest.mark.parametrize(
    ("steps", "corrupt", "tried", "restored", "remaining"),
    [
        ([5, 10, 15], [], set(), 10, [5, 10]),
        ([5, 10, 15], [10], set(), 5, [5]),
        ([5, 10, 15], [], {10}, 5, [5]),
        ([5, 10, 15], [], {5, 10}, 5, [5]),  # another order, rather than starting over
        ([15], [], set(), 0, []),
        ([10, 15], [10], set(), None, [10, 15]),
    ],
)
def test_a_rollback_keeps_the_restored_checkpoint(
    monkeypatch, steps, corrupt, tried, restored, remaining
):
    monkeypatch.setattr(restore, "init_state", lambda t: SimpleNamespace(step=0))
    t, checkpoints = SimpleNamespace(restore_target=lambda: None), FakeCheckpoints(steps, corrupt)
    if restored is None:
        with pytest.raises(CorruptCheckpointError):
            restore.roll_back(t, checkpoints, 12, tried)
    else:
        state, meta = restore.roll_back(t, checkpoints, 12, tried)
        assert (state.step, meta) == (restored, {"step": restored} if restored else {})
        assert restored in tried
    assert checkpoints.steps() == remaining


def test_a_rollback_is_logged_once(tmp_path):
    for num_rollbacks in 1, 1, 2:  # killed between a rollback and the next checkpoint
        with MetricsWriter(tmp_path, 15) as writer:
            trainer.log_rollback(tmp_path, writer, 15, num_rollbacks)
    assert [e["rollbacks"] for e in read_metrics(tmp_path)] == [1, 2]
