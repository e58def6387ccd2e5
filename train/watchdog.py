"""Watchdog: heartbeats of all processes, so that none waits for a dead one.

Each process writes heartbeats/PROCESS.json into the run's folder about every second, from a
separate thread: a process that compiles or validates for a long time still counts as alive. The
primary process watches all others, and they watch the primary, which reports its findings to them.
The watcher measures ages by its own clock. A process that finds another one missing names it and
exits at once, since its main thread is waiting for a peer that will never answer.
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

_PEER = ("gloo", "barrier", "heartbeat", "coordination")  # words in errors about a lost peer


class _Sign(msgspec.Struct):
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
    """The run's folder is not the same folder on every host; one line."""


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
        self._lost, self._stalled = heartbeat_timeout_seconds, stall_timeout_seconds
        self._every = min(1.0, heartbeat_timeout_seconds / 4)
        self._step = self._moves = self._beats = 0
        self._ended: str | None = None
        self._interrupted = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._writing = threading.Lock()

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
            run_on_primary(self._begin)
            run_on_all(self._begin)
            self._thread.start()
        return self

    def __exit__(self, _kind, error, _trace) -> None:
        if jax.process_count() == 1:
            return
        try:
            if error is not None:
                self._failed(error)
                return
            with suppress(OSError):
                self._beat()
            allgather(None)  # no process stops watching before all are done
        except Exception as lost:
            self._failed(lost)
            raise
        finally:
            self._over.set()
            self._thread.join()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, JaxRuntimeError) or any(w in str(error).lower() for w in _PEER):
            self.wait()
        self._interrupted = isinstance(error, PreemptedError)
        self._ended = " ".join(str(error).split())[:500] or type(error).__name__
        with suppress(OSError):  # the others will find this process missing
            self._beat()

    def wait(self) -> None:
        """Wait past `heartbeat_timeout_seconds`; a missing peer ends the process meanwhile."""
        time.sleep(self._lost + 4 * self._every)

    def _begin(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._beat()
        for _ in range(100):  # network folders may be slow
            if (self._read(0) or {}).get("run") == self._run:
                return
            time.sleep(0.1)
        raise WorkdirNotSharedError(
            f"{self._folder.parent} is not one folder for all hosts: {socket.gethostname()} does "
            "not see what process 0 wrote there"
        )

    def _beat(self) -> None:
        with self._writing:
            self._beats += 1
            sign = dict(run=self._run, process=jax.process_index(), host=socket.gethostname())
            sign |= dict(step=self._step, moves=self._moves, beat=self._beats, ended=self._ended)
            sign |= dict(interrupted=self._interrupted)
            sign |= dict(time=time.time())  # for people
            write_atomic(self._path(jax.process_index()), json.dumps(sign).encode())

    def _path(self, process: int) -> Path:
        return self._folder / f"{process}.json"

    def _read(self, process: int) -> dict | None:
        """Read a process's heartbeat; None if it is missing or corrupt."""
        try:
            sign = read_json(self._path(process), _Sign, max_bytes=1 << 16)
        except DataError:
            return None
        return msgspec.structs.asdict(sign)

    def _watch(self) -> None:
        index = jax.process_index()
        watched = [i for i in range(jax.process_count()) if i != index] if index == 0 else [0]
        last_signs: dict[int, dict | None] = {}
        last_seen = dict.fromkeys(watched, time.monotonic())
        moved_at, moves = time.monotonic(), None
        last_check = time.monotonic()
        while not self._over.wait(self._every):
            try:
                self._beat()
                delayed = False
            except OSError:  # a full disk, for example: the others may be alive
                delayed = True
            now = time.monotonic()
            if delayed or now - last_check > self._lost / 2:  # its own delay makes ages invalid
                last_seen = dict.fromkeys(watched, now)
            last_check = now
            for process in watched:
                sign = self._read(process)
                if sign and sign["run"] != self._run:
                    continue  # the heartbeat of an earlier or a later run
                if sign != last_signs.get(process):
                    last_signs[process], last_seen[process] = sign, now
                # After an interruption this process's main thread may already be exiting, too.
                if (
                    sign
                    and sign["ended"]
                    and (not sign.get("interrupted") or now - last_seen[process] > self._lost)
                ):
                    self._end(sign["ended"] if index else f"{_name(sign)}: {sign['ended']}")
            missing = [process for process in watched if now - last_seen[process] > self._lost]
            if missing:
                self._end(self._missing(missing))
            counts = [(sign or {}).get("moves") for sign in last_signs.values()] + [self._moves]
            if counts != moves:
                moves, moved_at = counts, now
            if index == 0 and self._stalled and now - moved_at > self._stalled:
                self._end(self._hanging(now - moved_at))

    def _missing(self, missing: list[int]) -> str:
        names = ", ".join(self._described(process) for process in missing)
        return (
            f"no sign of life for {self._lost:g} s from {names}; {self._steps()}; "
            "the same command goes on from the last checkpoint"
        )

    def _hanging(self, seconds: float) -> str:
        signs = {i: self._read(i) or {} for i in range(jax.process_count())}
        key = lambda i: (signs[i].get("step", -1), signs[i].get("moves", -1))  # noqa: E731
        behind = min(signs, key=key)
        names = ", ".join(self._described(i) for i in signs if key(i) == key(behind))
        return (
            f"nothing moved for {seconds:.0f} s; furthest behind is {names}; {self._steps()}; "
            "the same command goes on from the last checkpoint"
        )

    def _described(self, process: int) -> str:
        sign = self._read(process)
        return f"{_name(sign)}, last step {sign['step']}" if sign else f"process {process}"

    def _steps(self) -> str:
        """The last step that each process reported."""
        signs = [(i, self._read(i)) for i in range(jax.process_count())]
        return "last steps: " + ", ".join(
            f"{i}: {sign['step'] if sign else '?'}" for i, sign in signs
        )

    def _end(self, reason: str) -> None:
        with suppress(OSError):  # stderr may be on a full disk
            print(f"heed: error: {printable(reason)}", file=sys.stderr, flush=True)
        self._ended = reason
        with suppress(OSError):
            self._beat()
        if is_primary():  # let the others read the reason before JAX aborts them
            time.sleep(3 * self._every)
        os._exit(1)


def _name(sign: dict) -> str:
    return f"process {sign['process']} ({sign['host']})"
