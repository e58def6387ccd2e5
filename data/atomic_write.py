"""Atomic file writes: a file is complete or absent."""

import os
from pathlib import Path

_unfinished: set[Path] = set()  # temporary files, removed if the process exits during a write


def write_atomic(path: str | os.PathLike, content: bytes) -> None:
    """Write a temporary file, then rename it: readers see the old or the new file.

    If the disk is full, the old file is unchanged and no temporary file is left. A device or a
    pipe is written to directly. Raises OSError.
    """
    path = Path(path)
    device = path.exists() and not path.is_file()
    output = path if device else path.with_name(f".{path.name}.{os.getpid()}")
    if not device:
        _unfinished.add(output)
    try:
        output.write_bytes(content)
        if not device:
            os.replace(output, path)
    except OSError as error:
        if not device:
            output.unlink(missing_ok=True)
        error.filename = str(path)  # not the temporary name
        raise
    finally:
        _unfinished.discard(output)


def remove_unfinished() -> None:
    """Remove the temporary files of `write_atomic`, before an immediate exit of the process."""
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)
