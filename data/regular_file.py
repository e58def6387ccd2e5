"""Open or read a regular file, never a device or a directory, and a pipe only on request."""

import errno
import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

from data.errors import DataError

MAX_SETTINGS_BYTES = 64 << 20  # twice the size of a JSON vocabulary of a million entries
_SMALL_BYTES = 64 << 20  # a file up to this size may consist of holes


def open_regular(path: str | os.PathLike, pipes: bool = False) -> BinaryIO:
    """Open a regular file, or a link to one, for reading. Raises DataError for anything else.

    Opening a pipe without a writer would block forever, so the file is opened without blocking, and
    its type is read from the descriptor. With `pipes`, a pipe, such as a shell's <(command), is
    opened as well, after its writer has begun to write or has ended.
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
    if stat.S_ISFIFO(mode):
        _wait_for_writer(descriptor)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def _wait_for_writer(descriptor: int) -> None:
    """Wait until a pipe has data, or had a writer: before its first one, a read finds its end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


def read_regular(path: str | os.PathLike, max_bytes: int = MAX_SETTINGS_BYTES) -> bytes:
    """Read a regular file of at most `max_bytes`. Raises DataError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise DataError(f"{Path(path)} has {size:,} bytes; at most {max_bytes:,} are read")
        try:
            return file.read(max_bytes + 1)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None


def check_holes(file: BinaryIO, path: str | os.PathLike) -> None:
    """Raise DataError for a large sparse file with less than half of its bytes stored.

    Such a file takes no space on disk, but would be read as gigabytes of zeros.
    """
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    if size <= _SMALL_BYTES or not hasattr(os, "SEEK_DATA"):
        return
    original = os.lseek(descriptor, 0, os.SEEK_CUR)
    stored = position = 0
    try:
        while 2 * stored < size:
            start = os.lseek(descriptor, position, os.SEEK_DATA)  # ENXIO: only holes follow
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            stored += position - start
    except OSError as error:
        if error.errno != errno.ENXIO:
            return  # a file system without support for holes
        raise DataError(f"{path} has {size:,} bytes, but only {stored:,} are stored: it is "
                        "incomplete") from None  # fmt: skip
    finally:
        os.lseek(descriptor, original, os.SEEK_SET)
