"""Watchdog: heartbeats of all processes, so that no process waits for a dead one.

Each process writes heartbeats/PROCESS.json into the run's folder about every second, from a
separate thread: a process that compiles or validates for a long time still counts as alive. The
primary process watches all others, and they watch the primary, which writes its findings to its
heartbeat. Ages are measured by the watcher's clock. A process that finds another one missing names
it and exits at once, since its main thread waits for a peer that will never respond.
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import jax
import msgspec
from jax.errors import JaxRuntimeError

from data.atomic_write import write_atomic
from data.errors import DataError
from data.json_file import read_json
from data.printable import printable
from train.multihost import (
    PreemptedError,
    allgather,
    is_primary,
    run_on_all,
    run_on_primary,
    run_on_primary_and_broadcast,
)

_PEER = ("gloo", "barrier", "heartbeat", "coordination")  # words in errors about a missing peer


class _Heartbeat(msgspec.Struct):
    """A heartbeat file, as other processes read it."""

    run: str
    process: int
    host: str
    step: int
    moves: int
    beat: int
    ended: str | None
    interrupted: bool = False


class WorkdirNotSharedError(ValueError):
    """The run's folder is not shared by all hosts; one line."""


class Watchdog:
    """Context manager around training with several processes; with one it does nothing.

    A process without a heartbeat for `heartbeat_timeout_seconds` is missing. If no process makes
    progress for `stall_timeout_seconds` (0: no limit), the one furthest behind is reported to hang.
    Both end the other processes with status 1, as does an error in any process.
    """

    def __init__(
        self, folder: Path, heartbeat_timeout_seconds: float, stall_timeout_seconds: float
    ):
        self._folder = folder / "heartbeats"
        self._timeout, self._stall_timeout = heartbeat_timeout_seconds, stall_timeout_seconds
        self._interval = min(1.0, heartbeat_timeout_seconds / 4)
        self._step = self._moves = self._beats = 0
        self._ended: str | None = None
        self._interrupted = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._lock = threading.Lock()

    def on_step(self, step: int) -> None:
        """Record a dispatched update."""
        self._step = step
        self._moves += 1

    def heartbeat(self) -> None:
        """Record progress other than an update."""
        self._moves += 1

    def track(self, items: Iterable) -> Iterable:
        """Iterate over the items, with a heartbeat for each."""
        for item in items:
            self.heartbeat()
            yield item

    def __enter__(self) -> "Watchdog":
        if jax.process_count() > 1:
            self._run = run_on_primary_and_broadcast(lambda: uuid.uuid4().hex.encode()).decode()
            run_on_primary(self._first_beat)
            run_on_all(self._first_beat)
            self._thread.start()
        return self

    def __exit__(self, _kind, error, _trace) -> None:
        if jax.process_count() == 1:
            return
        try:
            if error is not None:
                self._report_error(error)
                return
            with suppress(OSError):
                self._beat()
            allgather(None)  # no process stops watching before all are done
        except Exception as sync_error:
            self._report_error(sync_error)
            raise
        finally:
            self._stop.set()
            self._thread.join()

    def _report_error(self, error: BaseException) -> None:
        if isinstance(error, JaxRuntimeError) or any(w in str(error).lower() for w in _PEER):
            self.wait()
        self._interrupted = isinstance(error, PreemptedError)
        self._ended = " ".join(str(error).split())[:500] or type(error).__name__
        with suppress(OSError):  # the others will find this process missing
            self._beat()
        if is_primary() and not self._interrupted:
            self._wait_for_readers()

    def wait(self) -> None:
        """Wait past `heartbeat_timeout_seconds`; a missing peer ends the process meanwhile."""
        time.sleep(self._timeout + 4 * self._interval)

    def _first_beat(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._beat()
        for _ in range(100):  # network folders may be slow
            if (self._read(0) or {}).get("run") == self._run:
                return
            time.sleep(0.1)
        raise WorkdirNotSharedError(
            f"{self._folder.parent} is not shared by all hosts: {socket.gethostname()} does not "
            "see the files of process 0"
        )

    def _beat(self) -> None:
        with self._lock:
            self._beats += 1
            beat = dict(run=self._run, process=jax.process_index(), host=socket.gethostname())
            beat |= dict(step=self._step, moves=self._moves, beat=self._beats, ended=self._ended)
            beat |= dict(interrupted=self._interrupted)
            beat |= dict(time=time.time())  # for users
            write_atomic(self._path(jax.process_index()), json.dumps(beat).encode())

    def _path(self, process: int) -> Path:
        return self._folder / f"{process}.json"

    def _read(self, process: int) -> dict | None:
        """Read a process's heartbeat; None if it is missing or corrupt."""
        try:
            beat = read_json(self._path(process), _Heartbeat, max_bytes=1 << 16)
        except DataError:
            return None
        return msgspec.structs.asdict(beat)

    def _watch(self) -> None:
        index = jax.process_index()
        watched = [i for i in range(jax.process_count()) if i != index] if index == 0 else [0]
        last_beats: dict[int, dict | None] = {}
        last_seen = dict.fromkeys(watched, time.monotonic())
        moved_at, moves = time.monotonic(), None
        last_check = time.monotonic()
        while not self._stop.wait(self._interval):
            try:
                self._beat()
                delayed = False
            except OSError:  # a full disk, for example: other processes may be alive
                delayed = True
            now = time.monotonic()
            if delayed or now - last_check > self._timeout / 2:  # a delay here makes ages invalid
                last_seen = dict.fromkeys(watched, now)
            last_check = now
            for process in watched:
                beat = self._read(process)
                if beat and beat["run"] != self._run:
                    continue  # the heartbeat of another run
                if beat != last_beats.get(process):
                    last_beats[process], last_seen[process] = beat, now
                # After an interruption this process's main thread may be exiting as well.
                if (
                    beat
                    and beat["ended"]
                    and (not beat.get("interrupted") or now - last_seen[process] > self._timeout)
                ):
                    self._end(beat["ended"] if index else f"{_process_name(beat)}: {beat['ended']}")
            missing = [process for process in watched if now - last_seen[process] > self._timeout]
            if missing:
                self._end(self._missing_message(missing))
            counts = [(beat or {}).get("moves") for beat in last_beats.values()] + [self._moves]
            if counts != moves:
                moves, moved_at = counts, now
            if index == 0 and self._stall_timeout and now - moved_at > self._stall_timeout:
                self._end(self._stall_message(now - moved_at))

    def _missing_message(self, missing: list[int]) -> str:
        names = ", ".join(self._describe(process) for process in missing)
        return (
            f"no heartbeat for {self._timeout:g} s from {names}; {self._steps()}; "
            "run the same command again to resume from the last checkpoint"
        )

    def _stall_message(self, seconds: float) -> str:
        beats = {i: self._read(i) or {} for i in range(jax.process_count())}
        key = lambda i: (beats[i].get("step", -1), beats[i].get("moves", -1))  # noqa: E731
        behind = min(beats, key=key)
        names = ", ".join(self._describe(i) for i in beats if key(i) == key(behind))
        return (
            f"no progress for {seconds:.0f} s; furthest behind is {names}; {self._steps()}; "
            "run the same command again to resume from the last checkpoint"
        )

    def _describe(self, process: int) -> str:
        beat = self._read(process)
        return f"{_process_name(beat)}, last step {beat['step']}" if beat else f"process {process}"

    def _steps(self) -> str:
        """The last step that each process reported."""
        beats = [(i, self._read(i)) for i in range(jax.process_count())]
        return "last steps: " + ", ".join(
            f"{i}: {beat['step'] if beat else '?'}" for i, beat in beats
        )

    def _end(self, reason: str) -> None:
        with suppress(OSError):  # stderr may be on a full disk
            print(f"heed: error: {printable(reason)}", file=sys.stderr, flush=True)
        self._ended = reason
        with suppress(OSError):
            self._beat()
        if is_primary():
            self._wait_for_readers()
        os._exit(1)

    def _wait_for_readers(self) -> None:
        """Let the others read the reason before JAX aborts them for want of this process."""
        time.sleep(3 * self._interval)


def _process_name(beat: dict) -> str:
    return f"process {beat['process']} ({beat['host']})"
