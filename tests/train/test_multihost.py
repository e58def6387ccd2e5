"""Several processes know the same, save together, and do not wait for one that is gone."""

import json
import os
import signal
import time

import jax
import pytest

from data.atomic_write import write_atomic
from model.sharding import make_mesh
from tests.train.multiprocess import end, same_bits, shapes, start, state_on
from train.checkpoint import CheckpointManager
from train.multihost import AnyReduce, allgather, run_on_all, run_on_primary_and_broadcast
from train.watchdog import Watchdog


def test_one_process_agrees_with_itself_at_once():
    assert (
        allgather(3) == [3]
        and run_on_primary_and_broadcast(lambda: b"x") == b"x"
        and run_on_all(lambda: 5) == 5
    )
    assert AnyReduce(("a",), lag=2)({"a"}) == {"a"}
    with pytest.raises(ZeroDivisionError):
        run_on_all(lambda: 1 / 0)


@pytest.mark.slow
def test_four_processes_know_the_same_and_save_for_any_number(tmp_path):
    """What one saved they restore, and what they saved one restores, bit for bit."""
    state = state_on(make_mesh(2, 2, 2))
    with CheckpointManager(tmp_path / "theirs") as checkpoints:
        checkpoints.save(7, state, {"by": "one"})
    for code, _, err in end(start("agree", tmp_path, 4, 2)):
        assert code == 0, err
    expected = state_on(make_mesh(2, 2, 2), seed=5)
    alone = make_mesh(devices=jax.devices()[:1])
    with CheckpointManager(tmp_path / "ours") as checkpoints:
        assert same_bits(checkpoints.restore(1, shapes(expected)), expected)
        assert same_bits(checkpoints.restore(1, shapes(state_on(alone))), state_on(alone, seed=5))


def until_step(folder, step, count):
    for _ in range(1200):
        try:
            told = [json.loads((folder / f"heartbeats/{i}.json").read_text()) for i in range(count)]
            if all(each["step"] >= step for each in told):
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    pytest.fail("they did not begin within a minute")


def error(told):
    """The line by which a process ended."""
    code, _, err = told
    (line,) = (line for line in err.splitlines() if line.startswith("heed: error: "))
    assert code == 1 and "Traceback" not in err, err
    return line


@pytest.mark.slow
@pytest.mark.parametrize(("number", "gone"), [(signal.SIGKILL, 0), (signal.SIGSTOP, 1)])
def test_a_process_that_is_gone_is_named_and_the_others_end(tmp_path, number, gone):
    """Also where it is the first, on whom JAX's own service depends."""
    processes = start("train", tmp_path, 2, 1)
    try:
        until_step(tmp_path, 10, 2)
        processes[gone].send_signal(number)
        begun = time.monotonic()
        (told,) = end([processes[1 - gone]], timeout=40)
        assert time.monotonic() - begun < 20
    finally:
        processes[gone].kill()
        end(processes)
    name = f"process {gone} ({os.uname().nodename}), last step "
    assert f"heed: error: no sign of life for 2 s from {name}" in error(told)
    assert "; last steps: 0: " in error(told) and ", 1: " in error(told)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["hang", "fail"])
def test_one_that_hangs_or_fails_alone_ends_all(tmp_path, task):
    first, last = end(start(task, tmp_path, 2, 1))
    if task == "hang":
        assert "nothing moved for" in error(first) and error(first) == error(last)
        assert "furthest behind is process 1" in error(first)
        assert "last step 4; last steps: 0: 5, 1: 4;" in error(first)
    else:
        assert "process 1 (" in error(first) and "nothing but this" in error(first)
        assert last[0] == 1 and "ValueError: nothing but this" in last[2]


@pytest.fixture
def second(tmp_path, monkeypatch):
    """The watchdog of the second of two processes, at work, and what it ended by."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    watchdog, ended = Watchdog(tmp_path, heartbeat_timeout_seconds=0.4, stall_timeout_seconds=0), []
    watchdog._run = "mine"
    monkeypatch.setattr(watchdog, "_end", lambda why: [ended.append(why), watchdog._over.set()])
    (tmp_path / "heartbeats").mkdir()
    watchdog._thread.start()
    yield tmp_path / "heartbeats", ended
    watchdog._over.set()
    watchdog._thread.join()


def beats(folder, ended, run, seconds, more=()):
    until, beat = time.monotonic() + seconds, 0
    while time.monotonic() < until and not ended:
        told = dict(run=run, process=0, host="h", step=1, moves=1, beat=beat, ended=None)
        told |= dict(more)
        write_atomic(folder / "0.json", json.dumps(told).encode())
        beat += 1
        time.sleep(0.05)


def test_a_run_that_began_since_is_no_sign_of_life(second):
    folder, ended = second
    beats(folder, ended, "mine", 1.0)
    assert not ended
    beats(folder, ended, "another", 5.0)
    assert len(ended) == 1 and "no sign of life for 0.4 s from process 0" in ended[0]


def test_a_sign_of_life_that_is_not_whole_is_none_and_ends_no_thread(second):
    folder, ended = second
    beats(folder, ended, "mine", 5.0, dict(host=["h"]))
    assert len(ended) == 1 and "no sign of life for 0.4 s from process 0" in ended[0]


def test_one_that_was_told_to_end_takes_the_others_along_only_if_they_stay(second):
    """Each hears of the signal by itself, and saves; an error is heard of from this file alone."""
    folder, ended = second
    beats(folder, ended, "mine", 1.0, dict(ended="SIGTERM", interrupted=True))
    assert not ended
    for _ in range(100):  # nothing more comes from it
        time.sleep(0.05 * (not ended))
    assert ended[0] == "SIGTERM"  # and here the thread outlives it


def test_one_that_failed_takes_the_others_along(second):
    folder, ended = second
    beats(folder, ended, "mine", 5.0, dict(ended="nothing but this", interrupted=False))
    assert ended == ["nothing but this"]


def test_whoever_cannot_write_judges_nobody(second):
    folder, ended = second
    folder.rename(folder.with_name("gone"))
    time.sleep(1.2)
    assert not ended
    folder.with_name("gone").rename(folder)
    beats(folder, ended, "another", 5.0)
    assert ended
