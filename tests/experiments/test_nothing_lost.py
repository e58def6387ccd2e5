"""Whatever ends a run, the same command goes on as if it had not."""

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
    heed,
    refused,
    small_experiment,
    train_args,
)
from train.checkpoint import CorruptCheckpointError
from train.loss import Metrics
from train.loss_monitor import DivergedError
from train.metrics import MetricsWriter, read_metrics

pytestmark = pytest.mark.slow


def same(left, right):
    assert events(left) == events(right)
    last = [arrays(folder / "checkpoints", "last", folder) for folder in (left, right)]
    assert len(last[0]) > 50
    for x, y in zip(*last, strict=True):
        np.testing.assert_array_equal(x, y)


def started(*args):
    command = [sys.executable, "-m", "experiments.train", *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment(), cwd=ROOT)


def until(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come about within a minute")


def has_event(folder, step):
    return lambda: (
        (folder / "metrics.jsonl").exists() and any(e["step"] >= step for e in read_metrics(folder))
    )


@pytest.mark.parametrize("when", ["early", "saving", "late"])
def test_a_run_that_is_killed_goes_on_bit_for_bit(run, text, tmp_path, when):
    whole, *_ = run
    folder = tmp_path / "run"
    args = train_args(text, folder, "train.checkpoint_every=4")
    moments = {
        "early": has_event(folder, 5),
        "saving": lambda: any((folder / "checkpoints").glob("*tmp*")),
        "late": lambda: (folder / "checkpoints" / "28").exists(),
    }
    it = started(*args)
    until(moments[when])
    it.kill()
    it.communicate()
    assert it.returncode == -signal.SIGKILL
    code, _, err = heed("train", *args)
    assert code == 0, err
    same(folder, whole)


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_a_signal_saves_and_the_run_goes_on_bit_for_bit(run, text, tmp_path, name, status):
    whole, *_ = run
    folder = tmp_path / "run"
    args = train_args(text, folder)
    it = started(*args)
    until(has_event(folder, 5))
    it.send_signal(getattr(signal, name))
    out, err = it.communicate()
    assert it.returncode == status, err.decode()
    last = json.loads(out)
    assert last["stopped_by"] == name and 5 <= last["step"] < 30
    saved = f"checkpoint saved at step {last['step']}; run the same command to resume"
    lines = [line for line in err.decode().splitlines() if line.startswith("heed: ")]
    assert lines == [f"heed: interrupted: {saved}"] * (name == "SIGINT")
    assert (folder / "checkpoints" / str(last["step"])).exists()
    code, _, err = heed("train", *args)
    assert code == 0 and f"resuming at step {last['step']}" in err, err
    same(folder, whole)


AT = """if True:
    import os, signal, sys
    from experiments import cli, setup, train, trainer, translation_task
    name, number = sys.argv.pop(1), int(sys.argv.pop(1))
    modules = dict(build=setup, restore_or_init=trainer, build_translator=translation_task)
    module = modules[name]
    real = getattr(module, name)

    def terminated(*args, **options):
        os.kill(os.getpid(), number)
        return real(*args, **options)

    setattr(module, name, terminated)
    cli.run(train.main, ["train", *sys.argv[1:]])
"""


def test_a_signal_where_there_is_nothing_to_save_ends_it_at_once(run, text, tmp_path):
    """While text is read, once settings are written, while the best checkpoint is tested."""
    whole, *_ = run
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    new = tmp_path / "no"
    cases = ("build", None, new), ("restore_or_init", None, new), ("build_translator", 30, folder)
    for (name, step, where), number in itertools.product(cases, (signal.SIGTERM, signal.SIGINT)):
        command = [sys.executable, "-c", AT, name, str(int(number)), *train_args(text, where)]
        done = subprocess.run(command, capture_output=True, env=environment(), cwd=ROOT)
        if number == signal.SIGTERM or step:
            last = json.loads(done.stdout)
            assert (last["step"], last["stopped_by"]) == (step, number.name)
        status = 0 if number == signal.SIGTERM else 130
        assert done.returncode == status, done.stderr.decode()
        assert done.stderr.count(b"heed: interrupted") == bool(status)
    assert not new.exists()
    same(folder, whole)


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_is_used(run, text, tmp_path):
    whole, *_ = run
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (large,) = sorted((folder / "checkpoints/30/params").rglob("d/*"))[:1]
    content = bytearray(large.read_bytes())
    content[len(content) // 2] ^= 1
    large.write_bytes(content)
    code, _, err = heed("train", *train_args(text, folder))
    assert code == 0 and "resuming at step 15" in err, err
    assert "warning: " in err and "step 30 is corrupt" in err
    same(folder, whole)


def test_a_checkpoint_that_best_cannot_compare_is_told(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    best = workdir.load(folder).step
    assert capsys.readouterr().err == ""
    (folder / f"checkpoints/{best}/metrics/metrics").write_text("[]")
    loaded = workdir.load(folder)
    line = f"the metrics of step {best} are missing or corrupt, so best is chosen without it"
    assert loaded.step == ({15, 30} - {best}).pop() and line in capsys.readouterr().err


def test_a_grace_period_that_is_too_short_is_told(text, tmp_path):
    it = started(*train_args(text, tmp_path / "run", "train.grace_seconds=0.0"))
    until(has_event(tmp_path / "run", 5))
    it.terminate()
    _, err = it.communicate()
    assert it.returncode == 1 and b"raise --config.train.grace_seconds" in err


def test_two_runs_in_one_folder_are_refused(run, text):
    folder, *_ = run
    with workdir_lock.lock(folder):
        line = refused("train", *train_args(text, folder))
    assert "is in use: process" in line and "wait, or choose another folder" in line


def test_a_run_that_diverges_goes_back_and_on_in_another_order(text, tmp_path, monkeypatch):
    calls, always, real = [], [], run_context.make_train_step
    plans, batches = [], translation_data.train_batches

    def recorded(pairs, plan, step, **options):
        plans.append((step, plan))
        return batches(pairs, plan, step, **options)

    monkeypatch.setattr(translation_data, "train_batches", recorded)

    def diverging(*args, **options):
        step = real(*args, **options)

        def call(state, batch):
            calls.append(int(state.step))
            if not always and not 17 < len(calls) <= 22:
                return step(state, batch)
            return state._replace(step=state.step + 1), Metrics.zero()._replace(skipped=1.0)

        call.traced = step.traced
        return call

    monkeypatch.setattr(run_context, "make_train_step", diverging)
    result = train(
        small_experiment(text, max_consecutive_skips=5, max_rollbacks=1), tmp_path / "run"
    )
    assert result["step"] == 30 and calls.count(15) == 2
    told = events(tmp_path / "run")
    assert {"step": 15, "split": "rollback", "rollbacks": 1} in told
    assert [e["step"] for e in told if e["split"] == "train"] == [5, 10, 15, 20, 25, 30]
    (start, plan), (again, other) = plans
    assert (start, again) == (0, 15)
    epoch = range(2 * plan.batches_per_epoch, 3 * plan.batches_per_epoch)
    pairs = [[plan[step].pairs.tolist() for step in epoch] for plan in (plan, other)]
    assert pairs[0] != pairs[1]  # in another order, but an epoch of the same pairs
    assert [sorted(itertools.chain.from_iterable(each)) for each in pairs] == [[*range(120)]] * 2

    always.append(True)  # and not once more than it may
    with pytest.raises(DivergedError):
        train(
            small_experiment(text, max_consecutive_skips=5, max_rollbacks=1, num_steps=40),
            tmp_path / "run",
        )
    assert [e["rollbacks"] for e in events(tmp_path / "run") if e["split"] == "rollback"] == [1]


class There:
    """Checkpoints of these steps, in the place of those on disk."""

    def __init__(self, steps, corrupt=()):
        self.there, self.corrupt = list(steps), corrupt

    def wait(self):
        pass

    def steps(self):
        return self.there

    def restore_latest_intact(self, _abstract, among):
        for step in sorted(set(among) - set(self.corrupt), reverse=True):
            return SimpleNamespace(step=step), {"step": step}, []
        raise CorruptCheckpointError(f"{among} are corrupt")

    def delete_after(self, step):
        self.there = [each for each in self.there if each <= step]


@pytest.mark.parametrize(
    ("steps", "corrupt", "tried", "found", "left"),
    [
        ([5, 10, 15], [], set(), 10, [5, 10]),
        ([5, 10, 15], [10], set(), 5, [5]),
        ([5, 10, 15], [], {10}, 5, [5]),
        ([5, 10, 15], [], {5, 10}, 5, [5]),  # in one more order, rather than from the beginning
        ([15], [], set(), 0, []),
        ([10, 15], [10], set(), None, [10, 15]),
    ],
)
def test_a_rewind_keeps_what_it_goes_back_to(monkeypatch, steps, corrupt, tried, found, left):
    monkeypatch.setattr(restore, "init_state", lambda t: SimpleNamespace(step=0))
    t, there = SimpleNamespace(restore_target=lambda: None), There(steps, corrupt)
    if found is None:
        with pytest.raises(CorruptCheckpointError):
            restore.roll_back(t, there, 12, tried)
    else:
        state, meta = restore.roll_back(t, there, 12, tried)
        assert (state.step, meta) == (found, {"step": found} if found else {})
        assert found in tried
    assert there.steps() == left


def test_a_rewind_is_told_once(tmp_path):
    for number in 1, 1, 2:  # killed between the first and the next checkpoint
        with MetricsWriter(tmp_path, 15) as writer:
            trainer.log_rollback(tmp_path, writer, 15, number)
    assert [e["rollbacks"] for e in read_metrics(tmp_path)] == [1, 2]
