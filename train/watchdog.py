"""Watchdog: processes report heartbeats, so that none waits for a dead one.

Each process writes heartbeats/PROCESS.json into the run's folder about every second, from a thread
of its own: a process that compiles or validates for long is alive. The primary process watches all
others, and these watch the primary, which reports to them what it found. Ages are measured by the
watcher's own clock. A process that finds another one missing names it and exits at once, since its
main thread waits for a peer that will never answer.
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

_PEER = ("gloo", "barrier", "heartbeat", "coordination")  # what errors speak of when a peer is gone


class _Sign(msgspec.Struct):
    """What others read of a process's sign of life."""

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
    """Around a training of several processes; of one it does nothing.

    A process without a sign of life for `heartbeat_timeout_seconds` is missing. Where no process
    has moved for `stall_timeout_seconds` (0: never mind), the one that is furthest behind hangs.
    Both end the others with status 1, as does an error in one of them.
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
        """Record an update that was dispatched."""
        self._step = step
        self._moves += 1

    def heartbeat(self) -> None:
        """Record any other piece of work done."""
        self._moves += 1

    def track(self, items: Iterable) -> Iterable:
        """The same items, each a heartbeat."""
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
            allgather(None)  # nobody stops watching before all are done
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
        with suppress(OSError):  # the others will miss this one
            self._beat()

    def wait(self) -> None:
        """Returns only if within `heartbeat_timeout_seconds` nobody turned out to be missing."""
        time.sleep(self._lost + 4 * self._every)

    def _begin(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._beat()
        for _ in range(100):  # network folders may take their time
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
            told = dict(run=self._run, process=jax.process_index(), host=socket.gethostname())
            told |= dict(step=self._step, moves=self._moves, beat=self._beats, ended=self._ended)
            told |= dict(interrupted=self._interrupted)
            told |= dict(time=time.time())  # for people
            write_atomic(self._path(jax.process_index()), json.dumps(told).encode())

    def _path(self, process: int) -> Path:
        return self._folder / f"{process}.json"

    def _read(self, process: int) -> dict | None:
        """The process's sign of life; None if there is none that is whole."""
        try:
            found = read_json(self._path(process), _Sign, max_bytes=1 << 16)
        except DataError:
            return None
        return msgspec.structs.asdict(found)

    def _watch(self) -> None:
        own = jax.process_index()
        watched = [i for i in range(jax.process_count()) if i != own] if own == 0 else [0]
        seen: dict[int, dict | None] = {}
        since = dict.fromkeys(watched, time.monotonic())
        moved, moves = time.monotonic(), None
        last = time.monotonic()
        while not self._over.wait(self._every):
            try:
                self._beat()
                held_up = False
            except OSError:  # a disk that is full, say: the others may live as well
                held_up = True
            now = time.monotonic()
            if held_up or now - last > self._lost / 2:  # held up itself, it judges nobody
                since = dict.fromkeys(watched, now)
            last = now
            for process in watched:
                told = self._read(process)
                if told and told["run"] != self._run:
                    continue  # an earlier run's, or that of one begun since, is no sign of life
                if told != seen.get(process):
                    seen[process], since[process] = told, now
                # Of an interruption the main thread here knows as well, and may be on its way.
                if (
                    told
                    and told["ended"]
                    and (not told.get("interrupted") or now - since[process] > self._lost)
                ):
                    self._end(told["ended"] if own else f"{_name(told)}: {told['ended']}")
            gone = [process for process in watched if now - since[process] > self._lost]
            if gone:
                self._end(self._missing(gone))
            counts = [(told or {}).get("moves") for told in seen.values()] + [self._moves]
            if counts != moves:
                moves, moved = counts, now
            if own == 0 and self._stalled and now - moved > self._stalled:
                self._end(self._hanging(now - moved))

    def _missing(self, gone: list[int]) -> str:
        names = ", ".join(self._described(process) for process in gone)
        return (
            f"no sign of life for {self._lost:g} s from {names}; {self._steps()}; "
            "the same command goes on from the last checkpoint"
        )

    def _hanging(self, seconds: float) -> str:
        told = {i: self._read(i) or {} for i in range(jax.process_count())}
        key = lambda i: (told[i].get("step", -1), told[i].get("moves", -1))  # noqa: E731
        behind = min(told, key=key)
        names = ", ".join(self._described(i) for i in told if key(i) == key(behind))
        return (
            f"nothing moved for {seconds:.0f} s; furthest behind is {names}; {self._steps()}; "
            "the same command goes on from the last checkpoint"
        )

    def _described(self, process: int) -> str:
        told = self._read(process)
        return f"{_name(told)}, last step {told['step']}" if told else f"process {process}"

    def _steps(self) -> str:
        """The last step of each process, as it told."""
        told = [(i, self._read(i)) for i in range(jax.process_count())]
        return "last steps: " + ", ".join(f"{i}: {t['step'] if t else '?'}" for i, t in told)

    def _end(self, why: str) -> None:
        with suppress(OSError):  # standard error may be on a full disk
            print(f"heed: error: {printable(why)}", file=sys.stderr, flush=True)
        self._ended = why
        with suppress(OSError):
            self._beat()
        if is_primary():  # the others, whom JAX would end with a dump, hear of it first
            time.sleep(3 * self._every)
        os._exit(1)


def _name(told: dict) -> str:
    return f"process {told['process']} ({told['host']})"
