"""Atomic file writes: a file is complete or absent."""

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

_unfinished: set[Path] = set()  # temporary files, removed if the process exits during a write
_DESCRIPTORS = re.compile(r"/proc/(\d+)(/task/\d+)?/fd|/dev/fd")


def write_atomic(path: str | os.PathLike, content: bytes) -> None:
    """Write a temporary file, then rename it: readers see the old or the new file.

    A link is followed, so that it keeps pointing to the file. If the disk is full, the old file is
    unchanged and no temporary file is left. Raises OSError, also for a pipe or a device: a pipe
    without a reader would block, and a rename would replace the device.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file: remove or rename it", os.fspath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    _unfinished.add(temporary)
    try:
        temporary.write_bytes(content)
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):  # its folder may be a file
            temporary.unlink(missing_ok=True)
        error.filename, error.filename2 = os.fspath(path), None  # not the temporary name
        raise
    finally:
        _unfinished.discard(temporary)


def write_output(path: str | os.PathLike, content: bytes) -> None:
    """Write the file that a flag names: like `write_atomic`, but pipes and devices are written to.

    An open file of a process, such as /dev/stdout, is written to as well, even if it is a regular
    file: replacing that would leave its readers with the old one. Raises OSError.
    """
    if is_replaced(path):
        return write_atomic(path, content)
    number = _own_descriptor(path)
    try:
        # A second open would truncate a file that the shell opened to append to.
        with Path(path).open("wb") if number is None else os.fdopen(os.dup(number), "wb") as file:
            file.write(content)
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def remove_unfinished() -> None:
    """Remove the temporary files of `write_atomic`, before an immediate exit of the process."""
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)


def is_replaced(path: str | os.PathLike) -> bool:
    """Whether `write_output` renames a file to this path, which takes a writable folder."""
    return _descriptor(path) is None and (os.path.isfile(path) or not os.path.exists(path))


def _own_descriptor(path: str | os.PathLike) -> int | None:
    """The number of this process's open file that `path` names, as /dev/stdout does."""
    folder, number = _descriptor(path) or ("", "")
    own = folder == "/dev/fd" or folder.startswith(f"/proc/{os.getpid()}/")
    return int(number) if own and number.isdecimal() else None


def _descriptor(path: str | os.PathLike) -> tuple[str, str] | None:
    """Folder and name of an open file of a process, if `path` or a link on its way names one.

    The open file itself may be regular, so links are followed one at a time.
    """
    current = os.path.abspath(path)
    for _ in range(40):  # the kernel's limit on links
        folder, name = os.path.realpath(os.path.dirname(current)), os.path.basename(current)
        if _DESCRIPTORS.fullmatch(folder):
            return folder, name
        try:
            current = os.path.join(folder, os.readlink(os.path.join(folder, name)))
        except OSError:  # not a link
            return None
    return None
