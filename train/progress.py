"""Progress: a live line on stderr."""

import shutil
import sys
import time
from contextlib import suppress
from typing import TextIO

from data.printable import printable
from train.multihost import is_primary


class Progress:
    """A live line on a terminal, redrawn every `every` seconds; other streams get log lines only.

    With several processes only the primary one prints.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 0.2):
        self._stream = sys.stderr if stream is None else stream
        self._silent = not is_primary()
        self._live = self._stream.isatty() and not self._silent
        self._every = every
        self._drawn = float("-inf")

    def due(self) -> bool:
        """Whether `show` would redraw now: check first if the text is expensive to build."""
        return self._live and time.monotonic() - self._drawn >= self._every

    def show(self, text: str) -> None:
        """Redraw the live line, if enough time has passed."""
        if self.due():
            self._drawn = time.monotonic()
            width = shutil.get_terminal_size().columns - 1
            self._write(printable(text)[:width], "")

    def log(self, text: str) -> None:
        """Print a permanent line above the live one."""
        self._write(printable(text), "\n")

    def close(self) -> None:
        """Clear the live line."""
        if self._live:
            self._write("", "")

    def _write(self, text: str, end: str) -> None:
        if self._silent:
            return
        # Return to the first column, then clear to the end of the line.
        clear = "\r\x1b[K" if self._live else ""
        with suppress(OSError):  # a log file on a full disk must not end training
            print(f"{clear}{text}", end=end, file=self._stream, flush=True)


def format_duration(seconds: float) -> str:
    """Format a duration: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
