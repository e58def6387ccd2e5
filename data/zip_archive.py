"""Read zip archives: regular files only, with bounded decompression."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import DataError
from data.regular_file import check_holes, open_regular

_LEAST = 64 << 20  # bytes that any archive may unpack to
_RATIO = 20  # weights hardly compress, lists of ids about five times
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy, PyTorch and Marian write


class ZipArchive:
    """An open archive; everything that is read from it counts against one limit."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, max_bytes: int):
        self._path, self._archive = path, archive
        self._max_bytes = self._left = max_bytes

    @property
    def names(self) -> list[str]:
        """The members' names."""
        return self._archive.namelist()

    def read(self, name: str) -> bytes:
        """A member's content.

        Raises DataError where the members read so far unpack to too much, whatever the archive says
        of their sizes; else what zipfile raises for damage, or ValueError.
        """
        member = self._archive.getinfo(name)
        if member.compress_type not in _METHODS:
            raise ValueError(f"{name} is compressed in a way that is not supported")
        with self._archive.open(member) as content:
            found = content.read(self._left + 1)
        if len(found) > self._left:
            raise DataError(
                f"{self._path} unpacks to more than {self._max_bytes:,} bytes, which is too much "
                "for a file of its size"
            )
        self._left -= len(found)
        return found


@contextmanager
def open_zip(path: Path) -> Iterator[ZipArchive]:
    """An archive, open within. Raises DataError, or what zipfile raises for damage."""
    with open_regular(path) as file:
        check_holes(file, path)
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            yield ZipArchive(path, archive, max(_LEAST, _RATIO * size))
