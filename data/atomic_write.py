"""Atomic file writes: a file is complete or absent."""

import os
from pathlib import Path

_unfinished: set[Path] = set()  # temporary files, for whoever ends the process during a write


def write_atomic(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file under another name, then renames it: readers find the old or the new one.

    If the disk is full, what stood there before is untouched and nothing else is left behind.
    Only a device or a pipe is written to as it is. Raises OSError.
    """
    path = Path(path)
    device = path.exists() and not path.is_file()
    written = path if device else path.with_name(f".{path.name}.{os.getpid()}")
    if not device:
        _unfinished.add(written)
    try:
        written.write_bytes(content)
        if not device:
            os.replace(written, path)
    except OSError as error:
        if not device:
            written.unlink(missing_ok=True)
        error.filename = str(path)  # the name that its reader knows
        raise
    finally:
        _unfinished.discard(written)


def remove_unfinished() -> None:
    """Removes what `write_atomic` has begun to write, in a process that ends at once."""
    for written in list(_unfinished):
        written.unlink(missing_ok=True)
