"""Checksums of checkpoints, to detect corruption."""

import json
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path

from data.atomic_write import write_atomic
from data.errors import DataError
from data.json_file import read_json

_NAME = "digests.json"


class ChecksumWriter:
    """Write a checkpoint's checksums in the background, as soon as it has its final name.

    From then on a run can resume from it, even if the process that wrote it dies.
    """

    def __init__(self, folder: Path):
        self._folder, self._over = folder, threading.Event()
        self._error: Exception | None = None
        self._replaced = folder.exists()  # if so, the folder exists before the save is done
        self._thread = threading.Thread(target=self._sign, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the checksums of a finished save are written; raise any error."""
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _sign(self) -> None:
        while not self._over.wait(0.05) and (self._replaced or not self._folder.is_dir()):
            pass
        try:
            if self._folder.is_dir():
                write_checksums(self._folder)
        except Exception as error:  # finish raises it
            self._error = error


def write_checksums(folder: Path) -> None:
    """Write the size and the CRC-32 of every file of a finished checkpoint."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _NAME]
    noted = {str(path.relative_to(folder)): _digest(path) for path in files}
    write_atomic(folder / _NAME, json.dumps(noted, indent=0).encode())


def verify_checksums(folder: Path, parts: Iterable[str]) -> None:
    """Raise ValueError, naming the file, if one of these parts is corrupt.

    A checkpoint without checksums, because its writer ended before, is accepted.
    """
    if not (folder / _NAME).exists():
        return
    parts = tuple(parts)
    for name, noted in read_json(folder / _NAME, dict[str, list[int]]).items():
        if name.split("/")[0] in parts or "/" not in name:
            path = folder / name
            if not path.is_file():
                raise ValueError(f"{name} is missing")
            if _digest(path) != noted:
                raise ValueError(f"{name} is not what was written")


def was_written(folder: Path, part: str) -> bool:
    """Whether a checkpoint was saved with this part; also True if the checksums are corrupt."""
    try:
        noted = read_json(folder / _NAME, dict[str, list[int]])
    except DataError:
        return (folder / _NAME).exists()
    return any(name.split("/")[0] == part for name in noted)


def fingerprint(folder: Path) -> str:
    """A checkpoint's identity: the checksum of its checksums, "" if it has none."""
    file = folder / _NAME
    return f"{zlib.crc32(file.read_bytes()):08x}" if file.exists() else ""


def _digest(path: Path) -> list[int]:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return [path.stat().st_size, checksum]
