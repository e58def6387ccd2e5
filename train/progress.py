"""The one line on stderr that tells how training goes, redrawn in place on a terminal."""

import shutil
import sys
import time
from typing import TextIO


class Progress:
    """A live line on a terminal; elsewhere nothing moves, and a plain line is written now and then.

    `live_every` and `plain_every` are seconds between two lines of either kind.
    """

    def __init__(
        self, stream: TextIO | None = None, live_every: float = 0.2, plain_every: float = 60.0
    ):
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._every = live_every if self._live else plain_every
        self._drawn = time.monotonic() if not self._live else float("-inf")

    def due(self) -> bool:
        """Whether `show` would draw now: ask first where the text costs something to make."""
        return time.monotonic() - self._drawn >= self._every

    def show(self, text: str) -> None:
        """Redraws the live line, or writes a plain one, if enough time has passed."""
        if self.due():
            self._drawn = time.monotonic()
            self._write(text, "" if self._live else "\n")

    def note(self, text: str) -> None:
        """A line that stays, above the live one."""
        self._write(text, "\n", cut=False)

    def close(self) -> None:
        """Clears the live line."""
        self._write("", "")

    def _write(self, text: str, end: str, cut: bool = True) -> None:
        if not self._live:
            if text:
                print(text, end=end, file=self._stream, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        # Back to the first column, then clear to the line's end.
        line = text[:width] if cut else text
        print(f"\r\x1b[K{line}", end=end, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
