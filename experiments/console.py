"""Console output: notes and progress on stderr, JSON on stdout."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar

from data.errors import DataError
from data.printable import json_line, printable
from train.multihost import is_primary


def log(text: str) -> None:
    """A line for people; of several processes the first tells it."""
    if is_primary():
        with suppress(OSError):  # a log file on a full disk, say: no reason to end a training
            print(printable(text), file=sys.stderr, flush=True)


def read_stdin() -> bytes:
    """Standard input, whole. Raises DataError where it is closed or cannot be read."""
    if sys.stdin is None:
        raise DataError("standard input is closed: name a file, or pipe the text in")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise DataError(f"standard input cannot be read: {error.strerror}") from None


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr, told of what is done; silent where that is no terminal.

    Without a total it shows only that something is done. Of several processes the first shows its
    own.
    """
    console = Console(stderr=True)
    # rich would take FORCE_COLOR, which many set, for a terminal.
    silent = not (sys.stderr.isatty() and is_primary())
    with Bar(console=console, disable=silent, transient=True) as progress:
        task = progress.add_task(escape(printable(title)), total=total)
        yield lambda done: progress.advance(task, done)


def print_json(values: dict) -> None:
    """A line for programs."""
    print(json_line(values), flush=True)
