"""A checkpoint's checksums, by which damage that its format does not notice is found."""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from data.files import replace_file

_NAME = "digests.json"


def write_digests(folder: Path) -> None:
    """Notes the size and the CRC-32 of every file that a finished checkpoint consists of."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _NAME]
    noted = {str(path.relative_to(folder)): _digest(path) for path in files}
    replace_file(folder / _NAME, json.dumps(noted, indent=0).encode())


def check_digests(folder: Path, parts: Iterable[str]) -> None:
    """Raises ValueError, naming the file, where one of these parts is not as it was written.

    A checkpoint whose writer ended before it noted anything is taken as it is.
    """
    if not (folder / _NAME).exists():
        return
    parts = tuple(parts)
    for name, noted in json.loads((folder / _NAME).read_bytes()).items():
        if name.split("/")[0] in parts or "/" not in name:
            path = folder / name
            if not path.is_file():
                raise ValueError(f"{name} is missing")
            if _digest(path) != noted:
                raise ValueError(f"{name} is not what was written")


def _digest(path: Path) -> list[int]:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return [path.stat().st_size, checksum]
