"""Atomic file writes: a file is complete or absent."""

import os
from pathlib import Path

_unfinished: set[Path] = set()  # temporary files, to remove if the process ends during a write


def write_atomic(path: str | os.PathLike, content: bytes) -> None:
    """Write a temporary file, then rename it: readers see the old or the new file.

    If the disk is full, the old file is unchanged and no temporary file is left. A device or a
    pipe is written to directly. Raises OSError.
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
        error.filename = str(path)  # the name that the caller knows
        raise
    finally:
        _unfinished.discard(written)


def remove_unfinished() -> None:
    """Remove the temporary files of `write_atomic`, before the process exits at once."""
    for written in list(_unfinished):
        written.unlink(missing_ok=True)
