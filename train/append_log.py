"""Append-only log file that can neither block nor end training."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_MAX_PENDING_BYTES = 8 << 20


class AppendFile:
    """Append records to a file in the calling thread; no method raises OSError or blocks.

    Records that cannot be written, as on a full disk, stay in memory, up to 8 MiB, and are retried
    with the next record. `warn` is called with one line for the first failure, and at the end with
    one line for the number of bytes that could not be written.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]):
        self._path, self._warn = path, warn
        self._file: int | None = None
        self._pending = bytearray()
        self._lost_bytes = 0
        self._warned = False

    def append(self, record: bytes) -> None:
        """Write a record, after all pending ones."""
        if self._pending and len(self._pending) + len(record) > _MAX_PENDING_BYTES:
            self._lost_bytes += len(record)
        else:
            self._pending += record
        try:
            self._write()
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(
                    f"cannot write {self._path}: {error.strerror or error}; training continues, "
                    "and each later event retries"
                )

    def close(self) -> None:
        """Write the pending records if possible, and close the file."""
        if self._pending:
            self.append(b"")
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)
        if lost_bytes := self._lost_bytes + len(self._pending):
            self._warn(f"{lost_bytes:,} bytes of {self._path} could not be written")

    def _write(self) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A pipe at this path fails at once instead of waiting for a reader.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(self._path, flags, 0o666)
        while self._pending:
            del self._pending[: os.write(self._file, self._pending)]
