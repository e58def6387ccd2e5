"""Fuzz file formats: each damaged file is read, or rejected in one line.

    python -m benchmarks.fuzz --format=all --cases=10000 --seed=0 --output=DIR

Cases run in forked processes of --chunk each, with limits on time and memory, so that a bad one
ends no others. One line of JSON a format says how many cases were rejected, accepted and failed,
and the most seconds and megabytes that one took; the damaged files of failures are kept in
--output, NAME.CASE beside NAME.CASE.txt, which says what happened.
"""

import os
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from absl import app, flags, logging

from experiments.console import print_json
from tests.fuzz.cases import damaged, outcome
from tests.fuzz.formats import FOLDERS, FORMATS

FORMAT = flags.DEFINE_enum("format", "all", ["all", *FORMATS], "Which of them.")
CASES = flags.DEFINE_integer("cases", 1000, "How many of each.", lower_bound=1)
FIRST = flags.DEFINE_integer("first", 0, "The number of the first, to try one again.")
CHUNK = flags.DEFINE_integer("chunk", 250, "How many a process.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the damage.")
OUTPUT = flags.DEFINE_string("output", "", "Where failures are kept.")

MAX_SECONDS, MAX_BYTES = 60, 4 << 30  # of one case
_TOLD = struct.Struct("<IBfI")  # a case, what became of it, its seconds, how long its failure is
_BEGUN, _REJECTED, _ACCEPTED, _FAILED = range(4)


class Told(NamedTuple):
    """What a process tells of a case."""

    number: int
    kind: int
    seconds: float
    failure: str


def main(_: list[str]) -> None:
    """Damage what the flags name."""
    logging.set_verbosity(logging.ERROR)
    failed = 0
    for name in FORMATS if FORMAT.value == "all" else [FORMAT.value]:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "whole"
            _alone(lambda folder=folder, name=name: _make(name, folder))
            failed += _run(name, folder)
    sys.exit(bool(failed))


def _run(name: str, folder: Path) -> int:
    """Tells of a format's cases in a line, and returns how many failed."""
    whole = (folder / FORMATS[name].file).read_bytes()
    counts, failures, seconds, most = [0] * 4, 0, 0.0, 0
    number, end = FIRST.value, FIRST.value + CASES.value
    while number < end:
        last = min(number + CHUNK.value, end)
        begun = number
        for told in _chunk(name, folder, whole, range(number, last)):
            if told.kind == _BEGUN:
                begun = told.number
                continue
            counts[told.kind] += 1
            seconds, number = max(seconds, told.seconds), told.number + 1
            if told.failure:
                failures += 1
                _keep(name, told, damaged(name, whole, SEED.value, told.number))
        status, used = _ended()
        most = max(most, used)
        if number < last:  # it ended amid a case
            what = f"its process ended with {status}: after {MAX_SECONDS} s, perhaps"
            _keep(name, Told(begun, _FAILED, 0, what), damaged(name, whole, SEED.value, begun))
            failures, number = failures + 1, begun + 1
    print_json(
        dict(
            format=name,
            cases=CASES.value,
            rejected=counts[_REJECTED],
            accepted=counts[_ACCEPTED],
            failures=failures,
            max_seconds=round(seconds, 3),
            max_mb=most >> 10,
        )
    )
    return failures


def _chunk(name: str, folder: Path, whole: bytes, cases: range) -> Iterator[Told]:
    """What a forked process tells of these cases; all but the last, if it is killed."""
    read, write = os.pipe()
    if not (process := os.fork()):
        os.close(read)
        _child(name, folder, whole, cases, write)
    os.close(write)
    _processes.append(process)
    with os.fdopen(read, "rb") as pipe:
        while len(head := pipe.read(_TOLD.size)) == _TOLD.size:
            number, kind, seconds, length = _TOLD.unpack(head)
            yield Told(number, kind, seconds, pipe.read(length).decode())


_processes: list[int] = []


def _ended() -> tuple[int, int]:
    """How the last process ended, and the most kilobytes that it had, imports and all."""
    _, status, used = os.wait4(_processes.pop(), 0)
    return status, used.ru_maxrss


def _child(name: str, folder: Path, whole: bytes, cases: range, pipe: int) -> None:
    """Runs the cases and ends the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what Rust writes of its panics
    form = FORMATS[name]
    outcome(form, folder, whole)  # what is imported or traced once
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    size = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_BYTES, size + MAX_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for number in cases:
        content = damaged(name, whole, SEED.value, number)
        os.write(pipe, _TOLD.pack(number, _BEGUN, 0, 0))
        signal.alarm(MAX_SECONDS)
        accepted, failure, seconds = outcome(form, folder, content)
        signal.alarm(0)
        kind = _FAILED if failure else _ACCEPTED if accepted else _REJECTED
        text = (failure or "").encode("utf-8", "replace")
        os.write(pipe, _TOLD.pack(number, kind, seconds, len(text)) + text)
    os._exit(0)


def _make(name: str, folder: Path) -> None:
    """Makes a folder, which is then read as it is."""
    FOLDERS[FORMATS[name].folder](folder)
    FORMATS[name].read(folder)


def _alone(make) -> None:
    """Has a forked process make something: JAX's threads, once there, do not survive a fork."""
    if not (process := os.fork()):
        status = 1
        try:
            make()
            status = 0
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(status)
    if os.waitpid(process, 0)[1]:
        sys.exit("the whole files could not be made")


def _keep(name: str, told: Told, content: bytes) -> None:
    print(f"{name}, case {told.number}: {told.failure}", file=sys.stderr)
    if OUTPUT.value:
        place = Path(OUTPUT.value)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.{told.number}").write_bytes(content)
        (place / f"{name}.{told.number}.txt").write_text(f"{told.failure}\n")


if __name__ == "__main__":
    app.run(main)
