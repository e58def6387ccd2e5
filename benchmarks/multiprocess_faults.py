"""Faults of one process of several: cases of fault injection."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.corruption import arrays, bitwise_equal


class Workers:
    """An uninterrupted reference run in two processes, and the runs with faults."""

    def __init__(self, cases):
        self.cases, self.reference = cases, cases.folder / "two"
        code, _, err = cases.end(self.start(self.reference))
        if code:
            raise RuntimeError(f"the reference run in two processes failed: {err}")

    def all(self) -> Iterator[tuple[str, str, str]]:
        """Yield (case, outcome, difference) for every case."""
        yield self.signal_process(signal.SIGKILL)
        yield self.signal_process(signal.SIGSTOP)
        yield self.terminated()
        yield self.changed_process_count()

    def start(self, folder: Path, *overrides: str, workers: int = 2) -> subprocess.Popen:
        """Start the launcher."""
        return self.cases.start(
            folder, "train.heartbeat_timeout_seconds=10", *overrides, workers=workers
        )

    def signal_process(self, number: signal.Signals) -> tuple[str, str, str]:
        """One of two processes dies or hangs."""
        folder = self.cases.folder / number.name
        launcher = self._start_and_signal(folder, number)
        start = time.monotonic()
        _, err = launcher.communicate(timeout=600)
        seconds = time.monotonic() - start
        lines = [line for line in err.splitlines() if "no heartbeat" in line]
        reported = bool(lines) and "process 1 (" in lines[0] and launcher.returncode != 0
        difference = self.resume(folder) if reported else "a message that names it"
        outcome = (
            f"exit {launcher.returncode} after {seconds:.0f} s: {(lines or ['no message'])[0]}"
        )
        return f"{number.name} to one of two processes", outcome, difference

    def terminated(self) -> tuple[str, str, str]:
        """A cluster terminates one of two processes."""
        folder = self.cases.folder / "terminated-worker"
        launcher = self._start_and_signal(folder, signal.SIGTERM)
        code, _, _ = self.cases.end(launcher)
        outcome = f"exit {code}, {self.cases.latest_checkpoint(folder)}"
        return (
            "SIGTERM to one of two processes",
            outcome,
            self.resume(folder) if code == 0 else f"exit status {code}",
        )

    def changed_process_count(self) -> tuple[str, str, str]:
        """Restore a checkpoint of four processes in one, and in two."""
        folder, outcome, difference = self.cases.folder / "four", [], "nothing"
        code, _, err = self.cases.end(self.start(folder, "train.num_steps=40", workers=4))
        if code:
            return "from 4 processes to 1, and to 2", f"exit {code}: {err}", "the run"
        saved = arrays(folder / "checkpoints", 40, folder)
        for workers in 1, 2:
            copy = self.cases.folder / f"by{workers}"
            shutil.copytree(folder, copy)
            code, _, err = self.cases.end(self.start(copy, "train.num_steps=60", workers=workers))
            outcome.append(f"in {workers}: exit {code}, {self.cases.latest_checkpoint(copy)}")
            difference = difference if code == 0 else err
            if difference == "nothing" and not bitwise_equal(
                saved, arrays(copy / "checkpoints", 40, copy)
            ):
                difference = "its bits"
        return "from 4 processes to 1, and to 2", "; ".join(outcome), difference

    def resume(self, folder: Path) -> str:
        """Run the same command again; return the difference to the reference run."""
        code, _, err = self.cases.end(self.start(folder))
        return self.cases.difference(folder, self.reference) if code == 0 else f"the run: {err}"

    def _start_and_signal(self, folder: Path, number: signal.Signals) -> subprocess.Popen:
        """Start a run and send this signal to its second process after a checkpoint."""
        launcher = self.start(folder)
        while launcher.poll() is None and not (folder / "checkpoints/40").exists():
            time.sleep(0.01)
        if launcher.poll() is None:
            send(launcher, 1, number)
        return launcher


def send(launcher: subprocess.Popen, process: int, number: signal.Signals) -> None:
    """Send a signal to one of the processes that experiments.pod.local started."""
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(launcher.pid)]
    children = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (pid,) = (
        line.split()[0] for line in children.splitlines() if f"--process_id={process} " in line
    )
    os.kill(int(pid), number)
