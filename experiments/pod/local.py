"""Launch multi-process training locally, with simulated CPU devices.

    python -m experiments.pod.local --num_processes=2 --devices_per_process=2 -- \\
        --config=... --workdir=...

The flags after -- are those of experiments.train. Every line on stderr begins with the number of
its process; stdout is that of process 0. SIGTERM and SIGINT are forwarded to all. The exit status
is the highest of all processes.
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGTERM

from absl import flags

from experiments import cli
from experiments.console import log
from experiments.float_flags import define_float
from experiments.pod.ports import free_port
from experiments.signals import handling, sigint_blocked
from model import ConfigError

NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", 2, "Number of processes to start.", lower_bound=1
)
DEVICES = flags.DEFINE_integer(
    "devices_per_process", 1, "Simulated CPU devices per process.", lower_bound=1
)
SHUTDOWN_TIMEOUT = define_float(
    "shutdown_timeout",
    300.0,
    "Seconds after the end of one process after which the others are killed.",
    lower_bound=0,
)
ROOT = Path(__file__).parent.parent.parent


def main(args: list[str]) -> None:
    """Start the processes with these flags of experiments.train, and wait for all."""
    if not args:
        raise ConfigError("no flags of experiments.train: give them after --")
    port = free_port()
    started: list[subprocess.Popen] = []
    received: list[int] = []

    def forward(number: int) -> None:
        received.append(number)
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    with ExitStack() as stack:
        for number in SIGTERM, SIGINT:
            stack.enter_context(handling(number, partial(forward, number), exit_on_second=False))
        for process in range(NUM_PROCESSES.value):
            if not received:
                with sigint_blocked():
                    started.append(start(process, port, args))
        if received:  # perhaps during the start of the last process
            for last in started[-1:]:
                last.send_signal(received[0])
        sys.exit(_follow(started) if started else 128 + received[0])


def _follow(started: list[subprocess.Popen]) -> int:
    """Forward the stderr of all processes until they end; return the highest exit status."""
    readers = [
        threading.Thread(target=prefix, args=(i, process.stderr), daemon=True)
        for i, process in enumerate(started)
    ]
    for reader in readers:
        reader.start()
    statuses = wait(started)
    for reader in readers:
        reader.join(timeout=10)
    # subprocess reports a signal as a negative status; shells use 128 plus its number.
    return max(128 - status if status < 0 else status for status in statuses)


def start(process: int, port: int, args: list[str]) -> subprocess.Popen:
    """Start one process of the training."""
    cluster_flags = (
        f"--coordinator_address=127.0.0.1:{port}",
        f"--num_processes={NUM_PROCESSES.value}",
        f"--process_id={process}",
    )
    xla = os.environ.get("XLA_FLAGS", "")
    devices = f"{xla} --xla_force_host_platform_device_count={DEVICES.value}"
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *cluster_flags, *args],
        stdout=None if process == 0 else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | dict(XLA_FLAGS=devices, JAX_PLATFORMS="cpu"),
        start_new_session=True,  # Ctrl-C reaches the processes only through the launcher, once
    )


def prefix(process: int, lines) -> None:
    """Print the lines of a process, each with its number in front.

    All processes are interrupted together: only process 0 reports it.
    """
    for line in lines:
        if process and line.startswith(b"heed: interrupted"):
            continue
        with suppress(OSError):  # keep reading, or the process would block
            sys.stderr.write(f"[{process}] {line.decode(errors='replace')}")
            sys.stderr.flush()


def wait(started: list[subprocess.Popen]) -> list[int]:
    """Wait until all have ended or were killed after the timeout; return the exit statuses."""
    deadline = None
    while any(process.poll() is None for process in started):
        if deadline is None and any(process.poll() is not None for process in started):
            deadline = time.monotonic() + SHUTDOWN_TIMEOUT.value
        if deadline is not None and time.monotonic() > deadline:
            for i, process in enumerate(started):
                if process.poll() is None:
                    log(f"heed: error: process {i} did not exit in time: killed")
                    process.kill()
        time.sleep(0.05)
    return [process.returncode for process in started]


if __name__ == "__main__":
    separator = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    cli.run(lambda: main(sys.argv[separator + 1 :]), sys.argv[:separator])
