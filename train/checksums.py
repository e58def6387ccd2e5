"""Checksums of checkpoints, to detect corruption."""

import json
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path

from data.atomic_write import write_atomic
from data.errors import DataError
from data.json_file import read_json
from data.regular_file import read_regular

_NAME = "digests.json"


class ChecksumWriter:
    """Write a checkpoint's checksums in the background, as soon as it has its final name.

    A run can then resume from it, even if the writing process dies.
    """

    def __init__(self, folder: Path):
        self._folder, self._save_finished = folder, threading.Event()
        self._error: Exception | None = None
        self._replaced = folder.exists()  # the folder then exists before the save is done
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether an error is waiting for `finish`."""
        return self._error is not None

    def finish(self) -> None:
        """Wait until the checksums of a finished save are written; raise any error."""
        self._save_finished.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        while not self._save_finished.wait(0.05) and (self._replaced or not self._folder.is_dir()):
            pass
        try:
            if self._folder.is_dir():
                write_checksums(self._folder)
        except Exception as error:  # finish raises it
            self._error = error


def write_checksums(folder: Path) -> None:
    """Write the size and the CRC-32 of every file of a finished checkpoint."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _NAME]
    checksums = {str(path.relative_to(folder)): _checksum(path) for path in files}
    write_atomic(folder / _NAME, json.dumps(checksums, indent=0).encode())


def verify_checksums(folder: Path, items: Iterable[str]) -> None:
    """Raise ValueError, naming the file, if one of these items is corrupt.

    A checkpoint without checksums, because its writer ended early, is accepted.
    """
    if not (folder / _NAME).exists():
        return
    items = tuple(items)
    for name, expected in read_json(folder / _NAME, dict[str, list[int]]).items():
        if name.split("/")[0] in items or "/" not in name:
            path = folder / name
            if not path.is_file():
                raise ValueError(f"{name} is missing")
            if _checksum(path) != expected:
                raise ValueError(f"{name} does not match its checksum")


def was_written(folder: Path, item: str) -> bool:
    """Whether a checkpoint was saved with this item; also True if the checksums are corrupt."""
    try:
        checksums = read_json(folder / _NAME, dict[str, list[int]])
    except DataError:
        return (folder / _NAME).exists()
    return any(name.split("/")[0] == item for name in checksums)


def fingerprint(folder: Path) -> str:
    """A checkpoint's fingerprint: the checksum of its checksums, "" if it has none.

    Raises DataError if their file is unreadable.
    """
    file = folder / _NAME
    return f"{zlib.crc32(read_regular(file)):08x}" if file.exists() else ""


def _checksum(path: Path) -> list[int]:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return [path.stat().st_size, checksum]
