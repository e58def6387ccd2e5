"""Multi-process training equals single-process training; processes end together."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from benchmarks.corruption import arrays
from benchmarks.multiprocess_faults import send
from experiments import distributed, workdir_lock
from experiments.pod.ports import free_port
from model import ConfigError
from tests.experiments.commands import ROOT, environment, error_line, heed, train_args
from tests.xla_for_tests import xla_flags
from train.metrics import read_metrics

pytestmark = pytest.mark.slow

FOUR = {"XLA_FLAGS": xla_flags(4)}
# One batch shape and few steps, since every process compiles.
STEPS = """data.packing=True train.num_steps=12 train.eval_every=12 train.checkpoint_every=4
    train.log_every=1 search.beam_size=1""".split()


def launch(count, devices, *args):
    """Starts several processes with the local launcher."""
    flags = (
        f"--num_processes={count}",
        f"--devices_per_process={devices}",
        "--shutdown_timeout=60",
        "--",
    )
    command = [sys.executable, "-m", "experiments.pod.local", *flags, *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, env=environment(), cwd=ROOT, text=True
    )


def wait_for_step(folder, step, process):
    for _ in range(1800):
        if process.poll() is not None:
            break
        if (folder / "metrics.jsonl").exists():
            if any(event["step"] >= step for event in read_metrics(folder)):
                return
        time.sleep(0.05)
    process.terminate()
    pytest.fail(f"step {step} was not reached: {process.communicate(timeout=60)}")


def assert_same_run(left, right):
    """Asserts equal events and parameters, up to the order of summation."""
    events = [read_metrics(folder) for folder in (left, right)]
    for left_event, right_event in zip(*events, strict=True):
        assert left_event.keys() == right_event.keys()
        # Meshes differ in the number of empty rows per batch.
        timings = {"elapsed_seconds", "tokens_per_second", "padding_fraction"}
        for name in left_event.keys() - timings:
            equal = left_event[name] == right_event[name]
            close = equal or left_event[name] == pytest.approx(right_event[name], rel=1e-5)
            assert close, (left_event, name)
    last = (arrays(folder / "checkpoints", "last", folder) for folder in (left, right))
    for x, y in zip(*last, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5, rtol=1e-4)


def test_multi_process_training_equals_single_process_training(text, tmp_path):
    """Four processes start, one gets SIGTERM; two resume and finish: as one with four devices.

    With four processes, heads are sharded over two; with two, parameters over all devices. No
    process has all parameters, not even for validation and testing.

    One test, to share the reference run and its compilations.
    """
    single, folder = tmp_path / "whole", tmp_path / "run"
    code, out, err = heed("train", *train_args(text, single, *STEPS), env=FOUR)
    assert code == 0, err
    expected, args = json.loads(out), train_args(text, folder, *STEPS)

    process = launch(4, 1, *args, "--config.mesh.data=2", "--config.mesh.tensor=2")
    wait_for_step(folder, 3, process)
    send(process, 3, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "in 4 processes" in err, err
    last = json.loads(out)
    assert last["stopped_by"] == "SIGTERM" and 3 <= last["step"] <= 12
    heartbeats = [json.loads((folder / f"heartbeats/{i}.json").read_text()) for i in range(4)]
    assert {heartbeat["step"] for heartbeat in heartbeats} == {last["step"]}
    assert (folder / "checkpoints" / str(last["step"])).exists()

    process = launch(2, 2, *args, "--config.mesh.fsdp=4")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0 and f"resuming at step {last['step']}" in err, err
    assert all(line.startswith("[0] ") for line in err.splitlines()), err
    result = json.loads(out)
    assert result["test"] == expected["test"] and result["num_params"] == expected["num_params"]
    assert_same_run(folder, single)

    with workdir_lock.lock(folder):
        process = launch(2, 1, *args)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == "" and "Traceback" not in err
    for line in "[0] heed: error: --workdir=", "[1] heed: error: process 0: --workdir=":
        (message,) = (text for text in err.splitlines() if text.startswith(line))
        assert "is in use: " in message


def start_two(program, *args):
    """Starts two processes of one training, which run `program`."""
    cluster_flags = f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2"
    pipe = subprocess.PIPE
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *args, *cluster_flags, f"--process_id={process}"],
            stdout=pipe, stderr=pipe, env=environment(), cwd=ROOT, text=True,
        )
        for process in range(2)
    ]  # fmt: skip


SIGNAL_WHILE_READING = """if True:
    import os, signal, sys, time
    from experiments import cli, train, translation_data
    signum, tokenize_cached = int(sys.argv.pop(1)), translation_data.tokenize_cached

    def signal_and_tokenize(*args):
        if "--process_id=1" in sys.argv:
            time.sleep(1)  # until both watchdogs run
            os.kill(os.getpid(), signum)
        return tokenize_cached(*args)

    translation_data.tokenize_cached = signal_and_tokenize
    cli.run(train.main, ["train", *sys.argv[1:]])
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_dies_while_reading_text_is_named(text, tmp_path, signum):
    """Nothing is written by then, and nothing remains; SIGTERM or Ctrl-C to one ends all."""
    folder = tmp_path / "deep/run"
    args = train_args(text, folder, "train.heartbeat_timeout_seconds=2.0")
    processes = first, _ = start_two(SIGNAL_WHILE_READING, str(int(signum)), *args)
    try:
        out, err = first.communicate(timeout=100)
        if signum in (signal.SIGTERM, signal.SIGINT):
            status = 0 if signum == signal.SIGTERM else 130
            assert [process.wait(timeout=60) for process in processes] == [status] * 2, err
            no_results = dict.fromkeys(("step", "num_params", "num_trainable_params"))
            assert json.loads(out) == no_results | {"stopped_by": signum.name}
            assert err.count("heed: interrupted\n") == bool(status)
            assert not folder.parent.exists()
        else:
            assert first.returncode == 1 and "Traceback" not in err, err
            assert f"error: no heartbeat for 2 s from process 1 ({os.uname().nodename})" in err
            assert not (folder / "config.json").exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


SMALL_FILES = """if True:
    import resource, sys
    from experiments import cli, train
    if "--process_id=1" in sys.argv:  # its writes of larger files fail
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
    cli.run(train.main, ["train", *sys.argv[1:]])
"""


def test_a_save_that_fails_in_one_process_ends_all_at_once(text, tmp_path):
    """Orbax alone would have both wait for each other until a timeout of minutes."""
    folder = tmp_path / "run"
    args = train_args(text, folder, "train.heartbeat_timeout_seconds=4.0", "mesh.fsdp=2", *STEPS)
    processes = first, second = start_two(SMALL_FILES, *args)
    try:
        _, err = first.communicate(timeout=100)
        assert first.returncode == 1 and "Traceback" not in err, err
        name = f"heed: error: process 1 ({os.uname().nodename}): {folder}/checkpoints: cannot"
        assert err.splitlines()[-1].startswith(name), err
        _, err = second.communicate(timeout=10)
        assert second.returncode == 1 and f"error: {folder}/checkpoints: cannot" in err, err
    finally:
        for process in processes:
            process.kill()
            process.communicate()


INVALID = [
    (dict(num_processes=2), "must be given together: --coordinator_address is missing"),
    (dict(coordinator_address="a:1", num_processes=2), "--process_id is missing"),
    (
        dict(coordinator_address="a:1", num_processes=2, process_id=2),
        "--process_id=2 must be from 0 to 1",
    ),
    (
        dict(coordinator_address="a:1", num_processes=0, process_id=0),
        "--num_processes=0 must be at least 1",
    ),
    (
        dict(coordinator_address="a", num_processes=2, process_id=1),
        "--coordinator_address=a is not HOST:PORT",
    ),
    (dict(auto_cluster=True, process_id=1), "--auto_cluster finds --coordinator_address"),
]


@pytest.mark.parametrize(("flags", "message"), INVALID, ids=str)
def test_invalid_cluster_flags_are_rejected(flags, message):
    with flagsaver.flagsaver(**flags), pytest.raises(ConfigError, match=message):
        with distributed.initialize(60):
            pytest.fail("joined")


def test_different_numbers_of_devices_are_rejected(monkeypatch):
    devices = [SimpleNamespace(process_index=i) for i in (0, 1, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(
        ConfigError, match="different numbers of devices: process 0: 1, process 1: 2"
    ):
        distributed._check_devices()


def test_a_process_that_cannot_join_ends_with_a_one_line_error(text, tmp_path):
    args = train_args(text, tmp_path / "no")
    cluster_flags = (
        "--coordinator_address=127.0.0.1:9",
        "--num_processes=2",
        "--process_id=1",
        "--initialization_timeout=1",
    )
    assert "not all processes joined within --initialization_timeout=1" in error_line(
        "train", *args, *cluster_flags
    )
    assert "no TPU pod, Slurm, Kubernetes or MPI" in error_line("train", *args, "--auto_cluster")
    assert not (tmp_path / "no").exists()


def test_sigterm_status_sets_the_exit_status_of_a_preempted_run(tmp_path):
    program = """if True:
        import sys
        from experiments import cli, train, trainer
        trainer.train = lambda *_: {"step": 1, "stopped_by": "SIGTERM"}
        cli.run(train.main, ["train", *sys.argv[1:]])
    """
    args = "--config=experiments/configs/demo.py", f"--workdir={tmp_path}"
    for flags, status in ([], 0), (["--sigterm_status=143"], 143):
        command = [sys.executable, "-c", program, *args, *flags]
        process = subprocess.run(command, capture_output=True, env=environment(), cwd=ROOT)
        assert process.returncode == status, process.stderr
        assert json.loads(process.stdout)["step"] == 1
