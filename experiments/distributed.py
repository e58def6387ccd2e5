"""Multi-process set-up: flags for jax.distributed, initialization and shutdown."""

import atexit
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from absl import flags

from experiments.float_flags import define_float
from experiments.signals import exit_now
from model import ConfigError

COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address",
    None,
    "HOST:PORT of process 0, to which the other processes connect; with --num_processes and "
    "--process_id.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes of the training.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Index of this process: 0, 1, ..")
AUTO_CLUSTER = flags.DEFINE_bool(
    "auto_cluster",
    False,
    "Detect the other processes on TPU pods, Slurm, Kubernetes or MPI.",
)

INITIALIZATION_TIMEOUT = define_float(
    "initialization_timeout",
    300.0,
    "Seconds to wait for the other processes at the start.",
    lower_bound=0,
)


@contextmanager
def initialize(heartbeat_timeout_seconds: float) -> Iterator[None]:
    """Context in which this process is part of the cluster that the flags name, if any.

    Must be entered before JAX initializes its devices. `heartbeat_timeout_seconds` is that of the
    watchdog, which must report before JAX. Raises ConfigError.
    """
    cluster = _cluster_flags()
    if cluster is None:
        yield
        return
    _reserve_stdout()
    aborted = "heed: error: JAX ended this process, as it says above"
    on_abort(lambda: exit_now(1, aborted), heartbeat_timeout_seconds + 10)
    _join(cluster, heartbeat_timeout_seconds)
    try:
        _check_devices()
        yield
    except BaseException:
        # Runs before JAX's own exit handler, which would wait for the other processes.
        atexit.register(_exit_without_barrier)
        raise
    jax.distributed.shutdown()


def _cluster_flags() -> dict | None:
    """Arguments for jax.distributed.initialize; None without a cluster."""
    address, count, number = COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value
    values = dict(coordinator_address=address, num_processes=count, process_id=number)
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == len(values):
        return {} if AUTO_CLUSTER.value else None
    if AUTO_CLUSTER.value:
        raise ConfigError(
            "--auto_cluster finds --coordinator_address, --num_processes and --process_id by itself"
        )
    if address is None or count is None or number is None:
        raise ConfigError(
            "--coordinator_address, --num_processes and --process_id must be given together: "
            f"--{missing[0]} is missing"
        )
    host_port = re.fullmatch(r"\S+:(\d{1,5})", address)
    if not host_port or not 0 < int(host_port[1]) < 1 << 16:
        raise ConfigError(f"--coordinator_address={address} is not HOST:PORT")
    if count < 1:
        raise ConfigError(f"--num_processes={count} must be at least 1")
    if not 0 <= number < count:
        raise ConfigError(
            f"--process_id={number} must be from 0 to {count - 1}: "
            f"there are --num_processes={count}"
        )
    return dict(
        coordinator_address=address,
        num_processes=count,
        process_id=number,
        cluster_detection_method="deactivate",
    )


def _join(cluster: dict, heartbeat_timeout_seconds: float) -> None:
    flag = f"--coordinator_address={COORDINATOR_ADDRESS.value}" if cluster else "--auto_cluster"
    # After its own timeout JAX aborts with a dump; this timer ends the process earlier.
    timer = threading.Timer(
        INITIALIZATION_TIMEOUT.value,
        lambda: exit_now(
            1,
            f"heed: error: {flag}: not all processes joined within --initialization_timeout="
            f"{INITIALIZATION_TIMEOUT.value:g}: is the address right, and does every other process "
            "run with the same --num_processes?",
        ),
    )
    timer.daemon = True
    timer.start()
    # JAX's preemption service would swallow SIGTERM, which experiments/preemption.py handles.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **cluster,
            initialization_timeout=int(INITIALIZATION_TIMEOUT.value) + 60,
            heartbeat_timeout_seconds=int(max(100, 2 * heartbeat_timeout_seconds + 30)),
        )
    except (ValueError, RuntimeError, OSError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        if "should be defined" in reason or "must be defined" in reason:
            reason = "no TPU pod, Slurm, Kubernetes or MPI job was detected"
        timer.cancel()
        raise ConfigError(f"{flag}: cannot join: {reason}") from None
    timer.cancel()


def _check_devices() -> None:
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        listing = ", ".join(f"process {process}: {counts[process]}" for process in sorted(counts))
        raise ConfigError(f"processes have different numbers of devices: {listing}")


def on_abort(action: Callable[[], None], seconds: float) -> None:
    """Make an abort by JAX (coordinator lost) wait `seconds` and then call `action`.

    Meanwhile the watchdog names the missing process and ends this one cleanly.
    """

    def handle(_signal: int) -> None:
        time.sleep(seconds)
        action()

    # Python handlers run in the main thread, which waits for other processes. A C handler runs in
    # the aborting thread; a reference to it must be kept.
    _HANDLERS.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(handle))
    ctypes.CDLL(None).signal(signal.SIGABRT, _HANDLERS[-1])


_HANDLERS: list[object] = []


def _reserve_stdout() -> None:
    """Reserve stdout for Python: C++ libraries (Gloo) print messages to file descriptor 1."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _exit_without_barrier() -> None:
    sys.stdout.flush()
    if jax.process_index() == 0:
        # JAX aborts the others with a dump once process 0 is gone: let them report before.
        time.sleep(3)
    os._exit(1)
