"""Read .npz files; sizes are checked before memory is allocated."""

import io
from math import prod
from pathlib import Path

import numpy as np

from data.zip_archive import open_zip

_SUFFIX = ".npy"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_NUMBER_KINDS = "biuf"  # NumPy's dtype kinds of numbers


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file by name; all must be numbers. The arrays are read-only.

    Raises DataError for other kinds of files; for corrupt ones ValueError, or zipfile's errors.
    """
    with open_zip(path) as archive:
        return {name.removesuffix(_SUFFIX): _array(name, archive.read(name))
                for name in archive.names}  # fmt: skip


def _array(name: str, content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{name} has version {version}, which is not supported")
    shape, fortran_order, dtype = _HEADERS[version](file)
    if dtype.kind not in _NUMBER_KINDS:
        raise ValueError(f"{name} holds {dtype.name}, not numbers")
    size = len(content) - file.tell()
    # Two negative lengths must not pass: their product is positive.
    if any(n < 0 for n in shape) or prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name} has {size} bytes, not those of {list(shape)[:8]} {dtype.name}")
    numbers = np.frombuffer(content, dtype, offset=file.tell())
    return numbers.reshape(shape, order="F" if fortran_order else "C")
