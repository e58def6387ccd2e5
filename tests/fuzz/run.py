"""Fuzz file formats: each corrupt file is read, or rejected in one line.

    python -m tests.fuzz.run --format=all --cases=10000 --seed=0 --output=DIR

Cases run in forked processes of --chunk cases each, with limits on time and memory, so that a
failing case does not stop others. One JSON line per format gives the number of rejected, accepted
and failed cases, and the maximum seconds and megabytes of a case. The corrupt files of failures are
stored in --output: NAME.CASE, and NAME.CASE.txt with the failure.
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
from tests.fuzz.cases import corrupt, outcome
from tests.fuzz.formats import FOLDERS, FORMATS

FORMAT = flags.DEFINE_enum("format", "all", ["all", *FORMATS], "File format to fuzz.")
CASES = flags.DEFINE_integer("cases", 1000, "Number of cases per format.", lower_bound=1)
FIRST = flags.DEFINE_integer("first", 0, "Index of the first case, to repeat a case.")
CHUNK = flags.DEFINE_integer("chunk", 250, "Cases per forked process.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the corruption.")
OUTPUT = flags.DEFINE_string("output", "", "Folder for the corrupt files of failures.")

MAX_SECONDS, MAX_BYTES = 60, 4 << 30  # of one case
_RECORD = struct.Struct("<IBfI")  # case, outcome, seconds, length of the failure text
_STARTED, _REJECTED, _ACCEPTED, _FAILED = range(4)


class Record(NamedTuple):
    """The result of a case, as a forked process reports it."""

    case: int
    outcome: int
    seconds: float
    failure: str


def main(_: list[str]) -> None:
    """Fuzz the formats that the flags name."""
    logging.set_verbosity(logging.ERROR)
    failed = 0
    for name in FORMATS if FORMAT.value == "all" else [FORMAT.value]:
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory) / "intact"
            _run_forked(lambda folder=folder, name=name: _make_intact(name, folder))
            failed += _run(name, folder)
    sys.exit(bool(failed))


def _run(name: str, folder: Path) -> int:
    """Run a format's cases, print their JSON line, and return the number of failures."""
    intact = (folder / FORMATS[name].file).read_bytes()
    counts, failures, seconds, max_kilobytes = [0] * 4, 0, 0.0, 0
    case, end = FIRST.value, FIRST.value + CASES.value
    while case < end:
        stop = min(case + CHUNK.value, end)
        started = case
        for record in _chunk(name, folder, intact, range(case, stop)):
            if record.outcome == _STARTED:
                started = record.case
                continue
            counts[record.outcome] += 1
            seconds, case = max(seconds, record.seconds), record.case + 1
            if record.failure:
                failures += 1
                _save_failure(name, record, corrupt(name, intact, SEED.value, record.case))
        status, kilobytes = _wait()
        max_kilobytes = max(max_kilobytes, kilobytes)
        if case < stop:  # it died during a case
            message = f"its process exited with {status}, possibly after {MAX_SECONDS} s"
            _save_failure(
                name,
                Record(started, _FAILED, 0, message),
                corrupt(name, intact, SEED.value, started),
            )
            failures, case = failures + 1, started + 1
    print_json(
        dict(
            format=name,
            cases=CASES.value,
            rejected=counts[_REJECTED],
            accepted=counts[_ACCEPTED],
            failures=failures,
            max_seconds=round(seconds, 3),
            max_mb=max_kilobytes >> 10,
        )
    )
    return failures


def _chunk(name: str, folder: Path, intact: bytes, cases: range) -> Iterator[Record]:
    """Records of these cases from a forked process; if it is killed, the last is missing."""
    read, write = os.pipe()
    if not (process := os.fork()):
        os.close(read)
        _child(name, folder, intact, cases, write)
    os.close(write)
    _processes.append(process)
    with os.fdopen(read, "rb") as pipe:
        while len(head := pipe.read(_RECORD.size)) == _RECORD.size:
            case, result, seconds, length = _RECORD.unpack(head)
            yield Record(case, result, seconds, pipe.read(length).decode())


_processes: list[int] = []


def _wait() -> tuple[int, int]:
    """Exit status and peak kilobytes of the last process, imports included."""
    _, status, usage = os.wait4(_processes.pop(), 0)
    return status, usage.ru_maxrss


def _child(name: str, folder: Path, intact: bytes, cases: range, pipe: int) -> None:
    """Run the cases and exit the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides the messages of Rust panics
    file_format = FORMATS[name]
    outcome(file_format, folder, intact)  # warm-up: imports and tracing
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    size = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_BYTES, size + MAX_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for case in cases:
        content = corrupt(name, intact, SEED.value, case)
        os.write(pipe, _RECORD.pack(case, _STARTED, 0, 0))
        signal.alarm(MAX_SECONDS)
        accepted, failure, seconds = outcome(file_format, folder, content)
        signal.alarm(0)
        result = _FAILED if failure else _ACCEPTED if accepted else _REJECTED
        text = (failure or "").encode("utf-8", "replace")
        os.write(pipe, _RECORD.pack(case, result, seconds, len(text)) + text)
    os._exit(0)


def _make_intact(name: str, folder: Path) -> None:
    """Create a folder with intact files, and read it once."""
    FOLDERS[FORMATS[name].folder](folder)
    FORMATS[name].read(folder)


def _run_forked(function) -> None:
    """Call `function` in a forked process: JAX threads would not survive a later fork."""
    if not (process := os.fork()):
        status = 1
        try:
            function()
            status = 0
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(status)
    if os.waitpid(process, 0)[1]:
        sys.exit("cannot make the intact files")


def _save_failure(name: str, record: Record, content: bytes) -> None:
    print(f"{name}, case {record.case}: {record.failure}", file=sys.stderr)
    if OUTPUT.value:
        directory = Path(OUTPUT.value)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{name}.{record.case}").write_bytes(content)
        (directory / f"{name}.{record.case}.txt").write_text(f"{record.failure}\n")


if __name__ == "__main__":
    app.run(main)
