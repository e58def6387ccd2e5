"""Multi-process training: communication, shared checkpoints and the watchdog."""

import json
import os
import signal
import time

import jax
import pytest

from data.atomic_write import write_atomic
from model.sharding import make_mesh
from tests.train.multiprocess import same_bits, shapes, start, state_on, wait_for
from train.checkpoint import CheckpointManager
from train.multihost import AnyReduce, allgather, run_on_all, run_on_primary_and_broadcast
from train.watchdog import Watchdog


def test_communication_of_one_process_is_immediate():
    assert (
        allgather(3) == [3]
        and run_on_primary_and_broadcast(lambda: b"x") == b"x"
        and run_on_all(lambda: 5) == 5
    )
    assert AnyReduce(("a",), lag=2)({"a"}) == {"a"}
    with pytest.raises(ZeroDivisionError):
        run_on_all(lambda: 1 / 0)


@pytest.mark.slow
def test_four_processes_communicate_and_share_checkpoints_with_one(tmp_path):
    """Four processes restore a checkpoint of one process and vice versa, bit for bit."""
    state = state_on(make_mesh(2, 2, 2))
    with CheckpointManager(tmp_path / "one_process") as checkpoints:
        checkpoints.save(7, state, {"by": "one"})
    for code, _, err in wait_for(start("communicate", tmp_path, 4, 2)):
        assert code == 0, err
    expected = state_on(make_mesh(2, 2, 2), seed=5)
    single = make_mesh(devices=jax.devices()[:1])
    with CheckpointManager(tmp_path / "all_processes") as checkpoints:
        assert same_bits(checkpoints.restore(1, shapes(expected)), expected)
        assert same_bits(checkpoints.restore(1, shapes(state_on(single))), state_on(single, seed=5))


def wait_for_step(folder, step, count):
    for _ in range(1200):
        try:
            heartbeats = [
                json.loads((folder / f"heartbeats/{i}.json").read_text()) for i in range(count)
            ]
            if all(beat["step"] >= step for beat in heartbeats):
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    pytest.fail("the processes did not start within a minute")


def error_line(result):
    """The error line of a process."""
    code, _, err = result
    (line,) = (line for line in err.splitlines() if line.startswith("heed: error: "))
    assert code == 1 and "Traceback" not in err, err
    return line


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "dead"), [(signal.SIGKILL, 0), (signal.SIGSTOP, 1)])
def test_a_dead_process_is_named_and_the_others_exit(tmp_path, signum, dead):
    """Includes process 0, which runs JAX's coordination service."""
    processes = start("train", tmp_path, 2, 1)
    try:
        wait_for_step(tmp_path, 10, 2)
        processes[dead].send_signal(signum)
        start_time = time.monotonic()
        (result,) = wait_for([processes[1 - dead]], timeout=40)
        assert time.monotonic() - start_time < 20
    finally:
        processes[dead].kill()
        wait_for(processes)
    name = f"process {dead} ({os.uname().nodename}), last step "
    assert f"heed: error: no heartbeat for 2 s from {name}" in error_line(result)
    assert "; last steps: 0: " in error_line(result) and ", 1: " in error_line(result)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["hang", "fail"])
def test_a_process_that_hangs_or_fails_ends_all(tmp_path, task):
    first, last = wait_for(start(task, tmp_path, 2, 1))
    if task == "hang":
        assert "no progress for" in error_line(first) and error_line(first) == error_line(last)
        assert "furthest behind is process 1" in error_line(first)
        assert "last step 4; last steps: 0: 5, 1: 4;" in error_line(first)
    else:
        assert "process 1 (" in error_line(first) and "injected error" in error_line(first)
        assert last[0] == 1 and "ValueError: injected error" in last[2]


@pytest.fixture
def second_process(tmp_path, monkeypatch):
    """A running watchdog of the second of two processes, and the reasons it exited for."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    watchdog, reasons = (
        Watchdog(tmp_path, heartbeat_timeout_seconds=0.4, stall_timeout_seconds=0),
        [],
    )
    watchdog._run = "mine"
    monkeypatch.setattr(
        watchdog, "_end", lambda reason: [reasons.append(reason), watchdog._stop.set()]
    )
    (tmp_path / "heartbeats").mkdir()
    watchdog._thread.start()
    yield tmp_path / "heartbeats", reasons
    watchdog._stop.set()
    watchdog._thread.join()


def send_heartbeats(folder, reasons, run, seconds, changes=()):
    deadline, beat = time.monotonic() + seconds, 0
    while time.monotonic() < deadline and not reasons:
        heartbeat = dict(run=run, process=0, host="h", step=1, moves=1, beat=beat, ended=None)
        heartbeat |= dict(changes)
        write_atomic(folder / "0.json", json.dumps(heartbeat).encode())
        beat += 1
        time.sleep(0.05)


def test_a_heartbeat_of_a_newer_run_does_not_count(second_process):
    folder, reasons = second_process
    send_heartbeats(folder, reasons, "mine", 1.0)
    assert not reasons
    send_heartbeats(folder, reasons, "another", 5.0)
    assert len(reasons) == 1 and "no heartbeat for 0.4 s from process 0" in reasons[0]


def test_a_malformed_heartbeat_does_not_count(second_process):
    folder, reasons = second_process
    send_heartbeats(folder, reasons, "mine", 5.0, dict(host=["h"]))
    assert len(reasons) == 1 and "no heartbeat for 0.4 s from process 0" in reasons[0]


def test_a_preempted_process_ends_the_others_only_after_a_timeout(second_process):
    """Each process gets the signal itself, and saves; errors are only known from this file."""
    folder, reasons = second_process
    send_heartbeats(folder, reasons, "mine", 1.0, dict(ended="SIGTERM", interrupted=True))
    assert not reasons
    for _ in range(100):  # no more heartbeats
        time.sleep(0.05 * (not reasons))
    assert reasons[0] == "SIGTERM"  # in this test the thread continues


def test_a_failed_process_ends_the_others(second_process):
    folder, reasons = second_process
    send_heartbeats(folder, reasons, "mine", 5.0, dict(ended="injected error", interrupted=False))
    assert reasons == ["injected error"]


def test_a_process_that_cannot_write_heartbeats_does_not_end_the_run(second_process):
    folder, reasons = second_process
    folder.rename(folder.with_name("gone"))
    time.sleep(1.2)
    assert not reasons
    folder.with_name("gone").rename(folder)
    send_heartbeats(folder, reasons, "another", 5.0)
    assert reasons
