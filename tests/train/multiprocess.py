"""A process of several, as tests start it: `python -m tests.train.multiprocess` and arguments."""

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
    """`count` processes that do `task`."""
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


def end(processes, timeout=120):
    """Each one's status, stdout and stderr."""
    try:
        told = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, told, strict=True)]


def state_on(mesh, seed=1):
    """The same bits on every mesh."""
    lay = lambda *spec: NamedSharding(mesh, P(*spec))  # noqa: E731
    layout = TrainState(
        lay(), {"w": lay("fsdp", "tensor"), "bias": lay()}, {"m": lay(None, "fsdp")}, lay()
    )

    def make():
        one, two = (jax.random.uniform(jax.random.key(seed + i), (8, 64)) for i in range(2))
        return TrainState(jnp.int32(7), {"w": one, "bias": one[0]}, {"m": two}, jax.random.key(3))

    return jax.jit(make, out_shardings=layout)()


def shapes(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def same_bits(left, right) -> bool:
    """Whether each device holds the same of both."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    raw = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return all(
        (a.data == b.data).all()
        for x, y in pairs
        for a, b in zip(raw(x).addressable_shards, raw(y).addressable_shards, strict=True)
    )


def agree(folder):
    """All that processes tell each other, and what they save and restore together."""
    index, count = jax.process_index(), jax.process_count()
    assert allgather({"i": index, "text": "ü" * 300 * index}) == [
        {"i": i, "text": "ü" * 300 * i} for i in range(count)
    ]
    assert run_on_primary_and_broadcast(lambda: b"x" * 1000 if index == 0 else 1 / 0) == b"x" * 1000
    assert run_on_all(lambda: index) == index
    for who in 0, count - 1:
        try:
            run_on_all(lambda who=who: 1 / 0 if index == who else None)
            raise AssertionError("nobody heard")
        except ZeroDivisionError:
            assert index == who
        except RemoteProcessError as error:
            assert index != who and str(error) == f"process {who}: division by zero"
    run_on_primary(lambda: (folder / "first").write_text(str(index)))
    assert (folder / "first").read_text() == "0"

    now, late = AnyReduce(("a", "b")), AnyReduce(("a", "b"), lag=2)
    assert now({"b"} if index == 1 else set()) == {"b"}
    assert now({"a"} if index == 0 else {"b"}) == {"a", "b"}
    mine = [set(), {"a"} if index == 1 else set(), set(), set(), {"b"}]
    assert [late(words) for words in mine] == [set(), set(), set(), {"a"}, set()]

    mesh = make_mesh(2, 2, 2)
    for each in mesh, make_mesh():  # where a process holds one part of a batch, and two
        rows = np.arange(48, dtype=np.int32).reshape(24, 2)
        own = [np.split(rows, num_batch_shards(each))[part] for part in local_batch_shards(each)]
        lay = NamedSharding(each, P(each.axis_names))
        for batch in (
            make_global_batch({"x": np.concatenate(own)}, each),
            put_on_mesh({"x": rows}, lay),
        ):
            assert batch["x"].shape == rows.shape
            for part in batch["x"].addressable_shards:
                assert (part.data == rows[part.index]).all()
    state = state_on(mesh)

    with CheckpointManager(folder / "theirs") as checkpoints:  # of one process, on eight devices
        assert same_bits(checkpoints.restore("last", shapes(state)), state)
    with CheckpointManager(folder / "ours") as checkpoints:
        checkpoints.save(1, state_on(mesh, seed=5), {"by": "all"})
        checkpoints.save(2, state, {"by": "all"}, {"bleu": 1.0})
    if index == 0:
        (large,) = sorted((folder / "ours/2/params").rglob("d/*"))[:1]
        large.write_bytes(large.read_bytes()[:-9])
    with CheckpointManager(folder / "ours") as checkpoints:
        found, meta, corrupt = checkpoints.restore_latest_intact(shapes(state))
        assert same_bits(found, state_on(mesh, seed=5)) and meta == {"by": "all"}
        assert len(corrupt) == 1 and "step 2 is corrupt" in corrupt[0], corrupt
        checkpoints.save(3, state, {"by": "all"})
        checkpoints.delete_after(1)  # as where a run goes back
        assert checkpoints.steps() == [1]
        checkpoints.save(2, found, {"by": "all, again"})
    with CheckpointManager(folder / "ours") as checkpoints:
        found, meta, corrupt = checkpoints.restore_latest_intact(shapes(state), [1, 2])
        assert same_bits(found, state_on(mesh, seed=5)) and meta == {"by": "all, again"}
        assert not corrupt


def train(folder):
    """Steps without an end, each of which waits for all, until something ends them."""
    with Watchdog(folder, heartbeat_timeout_seconds=2, stall_timeout_seconds=0) as watchdog:
        for step in range(10**6):
            watchdog.on_step(step)
            allgather(step)


def hang(folder):
    """The last process's main thread hangs, while it lives."""
    _befallen(folder, lambda: time.sleep(1000), stall_timeout_seconds=2)


def fail(folder):
    """The last process alone has an error."""

    def wrong():
        raise ValueError("nothing but this")

    _befallen(folder, wrong, stall_timeout_seconds=0)


def _befallen(folder, what, stall_timeout_seconds):
    """Ten steps, before the sixth of which something befalls the last process."""
    with Watchdog(
        folder, heartbeat_timeout_seconds=60, stall_timeout_seconds=stall_timeout_seconds
    ) as watchdog:
        for step in range(10):
            if step == 5 and jax.process_index() == jax.process_count() - 1:
                what()
            watchdog.on_step(step)
            allgather(step)


def _main():
    task, folder, port, count, index = sys.argv[1:]
    where = (
        f"--coordinator_address=127.0.0.1:{port}",
        f"--num_processes={count}",
        f"--process_id={index}",
    )
    flags.FLAGS([task, *where])
    with initialize(heartbeat_timeout_seconds=2):
        globals()[task](Path(folder))


if __name__ == "__main__":
    signal.alarm(100)
    _main()
