"""Multi-process test tasks: `python -m tests.train.multiprocess TASK FOLDER PORT COUNT INDEX`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.distributed import initialize
from experiments.pod.ports import free_port
from model.sharding import (
    local_batch_shards,
    make_global_batch,
    make_mesh,
    num_batch_shards,
    put_on_mesh,
)
from tests.train.states import shapes
from tests.xla_for_tests import xla_flags
from train.checkpoint import CheckpointManager
from train.multihost import (
    AnyReduce,
    RemoteProcessError,
    allgather,
    run_on_all,
    run_on_primary,
    run_on_primary_and_broadcast,
)
from train.state import TrainState
from train.watchdog import Watchdog

ROOT = Path(__file__).parent.parent.parent


def start(task, folder, count, devices):
    """Starts `count` processes that run `task`."""
    xla = xla_flags(devices)
    port, pipe = free_port(), subprocess.PIPE
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.multiprocess", task, str(folder), f"{port}"]
            + [f"{count}", f"{index}"],
            stdout=pipe, stderr=pipe, text=True, cwd=ROOT,
            env=os.environ | dict(XLA_FLAGS=xla, PYTHONPATH=str(ROOT), JAX_PLATFORMS="cpu"),
        )
        for index in range(count)
    ]  # fmt: skip


def wait_for(processes, timeout=120):
    """Exit status, stdout and stderr of each process."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, outputs, strict=True)]


def state_on(mesh, seed=1):
    """A state with the same bits on every mesh."""
    sharding = lambda *spec: NamedSharding(mesh, P(*spec))  # noqa: E731
    layout = TrainState(
        sharding(),
        {"w": sharding("fsdp", "tensor"), "bias": sharding()},
        {"m": sharding(None, "fsdp")},
        sharding(),
    )

    def make():
        first, second = (jax.random.uniform(jax.random.key(seed + i), (8, 64)) for i in range(2))
        return TrainState(
            jnp.int32(7), {"w": first, "bias": first[0]}, {"m": second}, jax.random.key(3)
        )

    return jax.jit(make, out_shardings=layout)()


def same_bits(a_tree, b_tree) -> bool:
    """Whether both trees have the same shards on every device."""
    pairs = zip(jax.tree.leaves(a_tree), jax.tree.leaves(b_tree), strict=True)
    raw = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return all(
        (a.data == b.data).all()
        for x, y in pairs
        for a, b in zip(raw(x).addressable_shards, raw(y).addressable_shards, strict=True)
    )


def communicate(folder):
    """Tests communication between processes, and saving and restoring together."""
    index, count = jax.process_index(), jax.process_count()
    assert allgather({"i": index, "text": "ü" * 300 * index}) == [
        {"i": i, "text": "ü" * 300 * i} for i in range(count)
    ]
    assert run_on_primary_and_broadcast(lambda: b"x" * 1000 if index == 0 else 1 / 0) == b"x" * 1000
    assert run_on_all(lambda: index) == index
    for failing in 0, count - 1:
        try:
            run_on_all(lambda failing=failing: 1 / 0 if index == failing else None)
            raise AssertionError("no process raised")
        except ZeroDivisionError:
            assert index == failing
        except RemoteProcessError as error:
            assert index != failing and str(error) == f"process {failing}: division by zero"
    run_on_primary(lambda: (folder / "first").write_text(str(index)))
    assert (folder / "first").read_text() == "0"

    any_reduce, lagged = AnyReduce(("a", "b")), AnyReduce(("a", "b"), lag=2)
    assert any_reduce({"b"} if index == 1 else set()) == {"b"}
    assert any_reduce({"a"} if index == 0 else {"b"}) == {"a", "b"}
    flags = [set(), {"a"} if index == 1 else set(), set(), set(), {"b"}]
    assert [lagged(words) for words in flags] == [set(), set(), set(), {"a"}, set()]

    mesh = make_mesh(2, 2, 2)
    for m in mesh, make_mesh():  # with one batch shard per process, and with two
        rows = np.arange(48, dtype=np.int32).reshape(24, 2)
        local_rows = [np.split(rows, num_batch_shards(m))[part] for part in local_batch_shards(m)]
        sharding = NamedSharding(m, P(m.axis_names))
        for batch in (
            make_global_batch({"x": np.concatenate(local_rows)}, m),
            put_on_mesh({"x": rows}, sharding),
        ):
            assert batch["x"].shape == rows.shape
            for part in batch["x"].addressable_shards:
                assert (part.data == rows[part.index]).all()
    state = state_on(mesh)

    # Saved by one process with eight devices.
    with CheckpointManager(folder / "one_process") as checkpoints:
        assert same_bits(checkpoints.restore("last", shapes(state)), state)
    with CheckpointManager(folder / "all_processes") as checkpoints:
        checkpoints.save(1, state_on(mesh, seed=5), {"by": "all"})
        checkpoints.save(2, state, {"by": "all"}, {"bleu": 1.0})
    if index == 0:
        (data_file,) = sorted((folder / "all_processes/2/params").rglob("d/*"))[:1]
        data_file.write_bytes(data_file.read_bytes()[:-9])
    with CheckpointManager(folder / "all_processes") as checkpoints:
        restored, meta, corrupt = checkpoints.restore_latest_intact(shapes(state))
        assert same_bits(restored, state_on(mesh, seed=5)) and meta == {"by": "all"}
        assert len(corrupt) == 1 and "step 2 is corrupt" in corrupt[0], corrupt
        checkpoints.save(3, state, {"by": "all"})
        checkpoints.delete_after(1)  # as in a rollback
        assert checkpoints.steps() == [1]
        checkpoints.save(2, restored, {"by": "all, again"})
    with CheckpointManager(folder / "all_processes") as checkpoints:
        restored, meta, corrupt = checkpoints.restore_latest_intact(shapes(state), [1, 2])
        assert same_bits(restored, state_on(mesh, seed=5)) and meta == {"by": "all, again"}
        assert not corrupt


def train(folder):
    """Endless steps, each a barrier, until the process is killed."""
    with Watchdog(folder, heartbeat_timeout_seconds=2, stall_timeout_seconds=0) as watchdog:
        for step in range(10**6):
            watchdog.on_step(step)
            allgather(step)


def hang(folder):
    """The main thread of the last process hangs, but sends heartbeats."""
    _run_with_fault(folder, lambda: time.sleep(1000), stall_timeout_seconds=2)


def fail(folder):
    """Only the last process raises an error."""

    def raise_error():
        raise ValueError("injected error")

    _run_with_fault(folder, raise_error, stall_timeout_seconds=0)


def _run_with_fault(folder, fault, stall_timeout_seconds):
    """Ten steps; the last process calls `fault` before the sixth."""
    with Watchdog(
        folder, heartbeat_timeout_seconds=60, stall_timeout_seconds=stall_timeout_seconds
    ) as watchdog:
        for step in range(10):
            if step == 5 and jax.process_index() == jax.process_count() - 1:
                fault()
            watchdog.on_step(step)
            allgather(step)


def _main():
    task, folder, port, count, index = sys.argv[1:]
    cluster_flags = (
        f"--coordinator_address=127.0.0.1:{port}",
        f"--num_processes={count}",
        f"--process_id={index}",
    )
    flags.FLAGS([task, *cluster_flags])
    with initialize(heartbeat_timeout_seconds=2):
        globals()[task](Path(folder))


if __name__ == "__main__":
    signal.alarm(100)
    _main()
