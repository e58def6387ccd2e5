"""Read a regular file whole, up to a size limit: never a pipe, a device or a directory."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from data.errors import DataError

MAX_SETTINGS_BYTES = 64 << 20  # a vocabulary of a million entries in JSON is half of it
_SMALL_BYTES = 64 << 20  # a file up to this size may be all holes


def open_regular(path: str | os.PathLike, pipes: bool = False) -> BinaryIO:
    """Opens a regular file, or a link to one, for reading. Raises DataError for anything else.

    Opening a pipe that nobody writes to would wait for ever, so it is opened without waiting and
    its kind is read off the open descriptor. With `pipes` one that somebody writes to is opened as
    well, such as a shell's <(command); one without a writer is empty.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if os.path.islink(path):
            target = os.readlink(os.fspath(path))
            raise DataError(f"{path} is a link to {target}, which is missing") from None
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {os.fspath(path)!r}: {reason}") from None
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
        os.close(descriptor)
        raise DataError(f"{path} is not a regular file")
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def read_regular(path: str | os.PathLike, max_bytes: int = MAX_SETTINGS_BYTES) -> bytes:
    """The content of a regular file of at most `max_bytes`. Raises DataError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise DataError(f"{Path(path)} has {size:,} bytes; at most {max_bytes:,} are read")
        try:
            return file.read(max_bytes + 1)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None


def check_holes(file: BinaryIO, path: str | os.PathLike) -> None:
    """Raises DataError for a large file of which less than half is stored.

    Such a sparse file costs its author nothing, and would be read as gigabytes of zeros.
    """
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    if size <= _SMALL_BYTES or not hasattr(os, "SEEK_DATA"):
        return
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    stored = at = 0
    try:
        while 2 * stored < size:
            start = os.lseek(descriptor, at, os.SEEK_DATA)  # ENXIO where there are only holes
            at = os.lseek(descriptor, start, os.SEEK_HOLE)
            stored += at - start
    except OSError as error:
        if error.errno != errno.ENXIO:
            return  # a file system that knows no holes
        raise DataError(f"{path} has {size:,} bytes, but only {stored:,} are stored: it is "
                        "incomplete") from None  # fmt: skip
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)
