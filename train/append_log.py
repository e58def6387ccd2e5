"""Append-only log file that can neither block nor end training."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_MAX_PENDING_BYTES = 8 << 20


class AppendFile:
    """Append records to a file in the calling thread; no method raises OSError or blocks.

    Records that cannot be written, as on a full disk, stay in memory, up to 8 MiB, and are retried
    with the next record and by `close`; then they are lost. `warn` is called with one line for the
    first failure, which names the path, or `shown` in its place.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], shown: Path | None = None):
        self._path, self._warn, self._shown = path, warn, shown or path
        self._file: int | None = None
        self._pending = bytearray()
        self._warned = False

    def append(self, record: bytes) -> None:
        """Write a record, after all pending ones."""
        if not self._pending or len(self._pending) + len(record) <= _MAX_PENDING_BYTES:
            self._pending += record
        try:
            self._write()
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(
                    f"cannot write {self._shown}: {error.strerror or error}; training continues, "
                    "each later event retries, and what cannot be written by the end is lost"
                )

    def close(self) -> None:
        """Write the pending records if possible, and close the file."""
        if self._pending:
            self.append(b"")
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)

    def _write(self) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A pipe at this path fails at once instead of waiting for a reader.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(self._path, flags, 0o666)
        while self._pending:
            del self._pending[: os.write(self._file, self._pending)]
