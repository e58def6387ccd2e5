"""Console output: messages and progress on stderr, JSON on stdout."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar

from data.errors import DataError
from data.printable import json_line, printable
from train.multihost import is_primary

COMPILE_HINT = (
    "memory and speed on other devices: "
    "python -m experiments.compile --config=FILE --target=v5e:4x4"
)


def log(text: str) -> None:
    """Print a message to stderr, on the primary process only."""
    if is_primary():
        with suppress(OSError):  # a full disk of a log file must not stop training
            write_line(sys.stderr, printable(text))


def write_line(stream: TextIO, text: str) -> None:
    """Write a line at once: `print` writes its end separately, perhaps after another thread's."""
    stream.write(f"{text}\n")
    stream.flush()


def read_stdin() -> bytes:
    """Read all of standard input. Raises DataError if it is closed or cannot be read."""
    if sys.stdin is None:
        raise DataError("standard input is closed: name a file, or pipe the text in")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise DataError(f"standard input cannot be read: {error.strerror}") from None


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[float], None]]:
    """Progress bar on stderr; yields a function to advance it. Silent without a terminal.

    Without a total it only shows activity. Only the primary process shows it.
    """
    console = Console(stderr=True)
    # rich would treat FORCE_COLOR, which is often set, as a terminal.
    silent = not (sys.stderr.isatty() and is_primary())
    with Bar(console=console, disable=silent, transient=True) as progress:
        task = progress.add_task(escape(printable(title)), total=total)
        yield lambda count: progress.advance(task, count)


def print_json(values: dict) -> None:
    """Print a line of JSON to stdout; null replaces numbers that are not finite."""
    write_line(sys.stdout, json_line(values))
