"""Read zip archives: regular files only, with bounded decompression."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import DataError
from data.regular_file import check_holes, open_regular

_MIN_LIMIT = 64 << 20  # unpacked bytes that are always allowed
_MAX_RATIO = 20  # weights hardly compress, lists of ids about 5:1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy, PyTorch and Marian write


class ZipArchive:
    """An open archive; all reads from it count against one size limit."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, max_bytes: int):
        self._path, self._archive = path, archive
        self._max_bytes = self._remaining = max_bytes

    @property
    def names(self) -> list[str]:
        """The names of the members."""
        return self._archive.namelist()

    def read(self, name: str) -> bytes:
        """Read a member's content.

        Raises DataError if the members read so far unpack to too much, regardless of the sizes that
        the archive declares; ValueError, or zipfile's errors, for a corrupt or unsupported member.
        """
        member = self._archive.getinfo(name)
        if member.compress_type not in _METHODS:
            raise ValueError(f"{name} is compressed in a way that is not supported")
        with self._archive.open(member) as content:
            data = content.read(self._remaining + 1)
        if len(data) > self._remaining:
            raise DataError(
                f"{self._path} unpacks to more than {self._max_bytes:,} bytes, too much for a "
                "file of its size"
            )
        self._remaining -= len(data)
        return data


@contextmanager
def open_zip(path: Path) -> Iterator[ZipArchive]:
    """Context manager of an open archive. Raises DataError, or zipfile's errors if corrupt."""
    with open_regular(path) as file:
        check_holes(file, path)
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            yield ZipArchive(path, archive, max(_MIN_LIMIT, _MAX_RATIO * size))
