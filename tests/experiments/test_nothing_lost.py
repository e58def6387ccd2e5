"""Whatever ends a run, the same command goes on as if it had not."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import course, training, workdir
from experiments.run import train
from tests.experiments.commands import (
    ROOT,
    environment,
    heed,
    refused,
    small_experiment,
    train_args,
)
from tests.experiments.saved import saved
from train.loss import Metrics
from train.metrics import read_metrics

TIMED = {"seconds", "tokens_per_second"}


def told(folder):
    """The events without what the clock says."""
    return [{k: v for k, v in e.items() if k not in TIMED} for e in read_metrics(folder)]


def same(left, right):
    assert told(left) == told(right)
    assert len(saved(left)) > 50
    for x, y in zip(saved(left), saved(right), strict=True):
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


def test_sigterm_saves_and_ends_well_and_the_run_goes_on_bit_for_bit(run, text, tmp_path):
    whole, *_ = run
    folder = tmp_path / "run"
    args = train_args(text, folder)
    it = started(*args)
    until(has_event(folder, 5))
    it.terminate()
    out, err = it.communicate()
    assert it.returncode == 0, err.decode()
    last = json.loads(out)
    assert last["stopped_by"] == "SIGTERM" and 5 <= last["step"] < 30
    assert (folder / "checkpoints" / str(last["step"])).exists()
    code, _, err = heed("train", *args)
    assert code == 0 and f"going on from step {last['step']}" in err, err
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
    assert code == 0 and "going on from step 15" in err, err
    assert "warning: " in err and "step 30 is damaged" in err
    same(folder, whole)


def test_a_grace_period_that_is_too_short_is_told(text, tmp_path):
    it = started(*train_args(text, tmp_path / "run", "train.grace_seconds=0.0"))
    until(has_event(tmp_path / "run", 5))
    it.terminate()
    _, err = it.communicate()
    assert it.returncode == 1 and b"raise --config.train.grace_seconds" in err


def test_two_runs_in_one_folder_are_refused(run, text):
    folder, *_ = run
    with workdir.lock(folder):
        line = refused("train", *train_args(text, folder))
    assert "is in use: process" in line and "wait, or choose another folder" in line


def test_a_run_that_diverges_goes_back_and_on_in_another_order(text, tmp_path, monkeypatch):
    calls, real = [], training.compile_train_step
    plans, batches = [], course.train_batches

    def recorded(pairs, plan, step, **options):
        plans.append((step, plan))
        return batches(pairs, plan, step, **options)

    monkeypatch.setattr(course, "train_batches", recorded)

    def diverging(*args, **options):
        step = real(*args, **options)

        def call(state, batch):
            calls.append(int(state.step))
            if not 17 < len(calls) <= 22:
                return step(state, batch)
            return state._replace(step=state.step + 1), Metrics.zero()._replace(skipped=1.0)

        call.traced = step.traced
        return call

    monkeypatch.setattr(training, "compile_train_step", diverging)
    result = train(small_experiment(text, max_skipped=5, rewinds=1), tmp_path / "run")
    assert result["step"] == 30 and calls.count(15) == 2
    events = told(tmp_path / "run")
    assert {"step": 15, "split": "rewind", "rewinds": 1} in events
    assert [e["step"] for e in events if e["split"] == "train"] == [5, 10, 15, 20, 25, 30]
    (start, plan), (again, other) = plans
    assert (start, again) == (0, 15)
    epoch = range(2 * plan.batches_per_epoch, 3 * plan.batches_per_epoch)
    pairs = [[plan[step][1].tolist() for step in epoch] for plan in (plan, other)]
    assert pairs[0] != pairs[1]  # in another order, but an epoch of the same pairs
    assert [sorted(itertools.chain.from_iterable(each)) for each in pairs] == [[*range(120)]] * 2
