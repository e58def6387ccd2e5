"""Several processes train what one does, and end together."""

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
from tests.experiments.commands import ROOT, environment, heed, refused, train_args
from tests.xla_for_tests import xla_flags
from train.metrics import read_metrics

pytestmark = pytest.mark.slow

FOUR = {"XLA_FLAGS": xla_flags(4)}
# One batch shape, and few steps: in several processes each compiles for itself.
STEPS = """data.packing=True train.num_steps=12 train.eval_every=12 train.checkpoint_every=4
    train.log_every=1 search.beam_size=1""".split()


def launched(count, devices, *args):
    """The command that starts several, begun."""
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


def until_step(folder, step, it):
    for _ in range(1800):
        if it.poll() is not None:
            break
        if (folder / "metrics.jsonl").exists():
            if any(event["step"] >= step for event in read_metrics(folder)):
                return
        time.sleep(0.05)
    it.terminate()
    pytest.fail(f"it did not come to step {step}: {it.communicate(timeout=60)}")


def same_run(left, right):
    """The same events with the same keys, and the same parameters but for the order of sums."""
    events = [read_metrics(folder) for folder in (left, right)]
    for one, other in zip(*events, strict=True):
        assert one.keys() == other.keys()
        # Other meshes fill batches up with other numbers of empty rows.
        for name in one.keys() - {"seconds", "tokens_per_second", "padding_fraction"}:
            same = one[name] == other[name]
            assert same or one[name] == pytest.approx(other[name], rel=1e-5), (one, name)
    last = (arrays(folder / "checkpoints", "last", folder) for folder in (left, right))
    for x, y in zip(*last, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5, rtol=1e-4)


def test_several_processes_train_what_one_does(text, tmp_path):
    """Four begin, of which one is told to end; two go on to the end: as one does on four devices.

    Heads are split over two of the four, parameters over all devices of the two: no process has
    them whole, also to validate and to test.

    One test, since what it compares with, and compiles, is the same.
    """
    whole, folder = tmp_path / "whole", tmp_path / "run"
    code, out, err = heed("train", *train_args(text, whole, *STEPS), env=FOUR)
    assert code == 0, err
    expected, args = json.loads(out), train_args(text, folder, *STEPS)

    it = launched(4, 1, *args, "--config.mesh.data=2", "--config.mesh.tensor=2")
    until_step(folder, 3, it)
    send(it, 3, signal.SIGTERM)
    out, err = it.communicate(timeout=60)
    assert it.returncode == 0 and "in 4 processes" in err, err
    last = json.loads(out)
    assert last["stopped_by"] == "SIGTERM" and 3 <= last["step"] <= 12
    told = [json.loads((folder / f"heartbeats/{i}.json").read_text()) for i in range(4)]
    assert {each["step"] for each in told} == {last["step"]}
    assert (folder / "checkpoints" / str(last["step"])).exists()

    it = launched(2, 2, *args, "--config.mesh.fsdp=4")
    out, err = it.communicate(timeout=200)
    assert it.returncode == 0 and f"resuming at step {last['step']}" in err, err
    assert all(line.startswith("[0] ") for line in err.splitlines()), err
    found = json.loads(out)
    assert found["test"] == expected["test"] and found["num_params"] == expected["num_params"]
    same_run(folder, whole)

    with workdir_lock.lock(folder):
        it = launched(2, 1, *args)
        out, err = it.communicate(timeout=60)
    assert it.returncode == 1 and out == "" and "Traceback" not in err
    for line in "[0] heed: error: --workdir=", "[1] heed: error: process 0: --workdir=":
        (found,) = (each for each in err.splitlines() if each.startswith(line))
        assert "is in use: " in found


def both(program, *args):
    """Two processes of one training, each of which runs the program."""
    together = f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2"
    pipe = subprocess.PIPE
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *args, *together, f"--process_id={process}"],
            stdout=pipe, stderr=pipe, env=environment(), cwd=ROOT, text=True,
        )
        for process in range(2)
    ]  # fmt: skip


READING = """if True:
    import os, signal, sys, time
    from experiments import cli, train, translation_data
    number, real = int(sys.argv.pop(1)), translation_data.tokenize_cached

    def befallen(*args):
        if "--process_id=1" in sys.argv:
            time.sleep(1)  # until both watch
            os.kill(os.getpid(), number)
        return real(*args)

    translation_data.tokenize_cached = befallen
    cli.run(train.main, ["train", *sys.argv[1:]])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT])
def test_one_that_is_gone_while_it_reads_text_is_named(text, tmp_path, number):
    """Nothing was written by then, and nothing stays; SIGTERM or Ctrl-C to one ends all."""
    folder = tmp_path / "deep/run"
    args = train_args(text, folder, "train.heartbeat_timeout_seconds=2.0")
    two = first, _ = both(READING, str(int(number)), *args)
    try:
        out, err = first.communicate(timeout=100)
        if number in (signal.SIGTERM, signal.SIGINT):
            status = 0 if number == signal.SIGTERM else 130
            assert [process.wait(timeout=60) for process in two] == [status] * 2, err
            nothing = dict.fromkeys(("step", "num_params", "num_trainable_params"))
            assert json.loads(out) == nothing | {"stopped_by": number.name}
            assert err.count("heed: interrupted\n") == bool(status)
            assert not folder.parent.exists()
        else:
            assert first.returncode == 1 and "Traceback" not in err, err
            assert f"error: no sign of life for 2 s from process 1 ({os.uname().nodename})" in err
            assert not (folder / "config.json").exists()
    finally:
        for process in two:
            process.kill()
            process.communicate()


WRONG = [
    (dict(num_processes=2), "are given together: there is no --coordinator_address"),
    (dict(coordinator_address="a:1", num_processes=2), "there is no --process_id"),
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


@pytest.mark.parametrize(("given", "message"), WRONG, ids=str)
def test_flags_that_do_not_make_a_cluster_are_refused(given, message):
    with flagsaver.flagsaver(**given), pytest.raises(ConfigError, match=message):
        with distributed.initialize(60):
            pytest.fail("joined")


def test_other_numbers_of_devices_are_refused(monkeypatch):
    devices = [SimpleNamespace(process_index=i) for i in (0, 1, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(ConfigError, match="not the same everywhere: process 0: 1, process 1: 2"):
        distributed._check_devices()


def test_who_cannot_join_ends_in_one_line(text, tmp_path):
    args = train_args(text, tmp_path / "no")
    alone = (
        "--coordinator_address=127.0.0.1:9",
        "--num_processes=2",
        "--process_id=1",
        "--initialization_timeout=1",
    )
    assert "not all processes met within --initialization_timeout=1" in refused(
        "train", *args, *alone
    )
    assert "no TPU pod, Slurm, Kubernetes or MPI" in refused("train", *args, "--auto_cluster")
    assert not (tmp_path / "no").exists()


def test_a_cluster_that_begins_again_only_what_failed_gets_the_status_it_wants(tmp_path):
    program = """if True:
        import sys
        from experiments import cli, train, trainer
        trainer.train = lambda *_: {"step": 1, "stopped_by": "SIGTERM"}
        cli.run(train.main, ["train", *sys.argv[1:]])
    """
    args = "--config=experiments/configs/demo.py", f"--workdir={tmp_path}"
    for more, status in ([], 0), (["--sigterm_status=143"], 143):
        command = [sys.executable, "-c", program, *args, *more]
        done = subprocess.run(command, capture_output=True, env=environment(), cwd=ROOT)
        assert done.returncode == status and json.loads(done.stdout)["step"] == 1, done.stderr
