"""Read Marian's .npz and .bin files: arrays by name, and settings.

A .bin contains a version, a count, a header for each array (lengths of its name, shape and data,
and its type), all names, all shapes, padding, and all data. Matrices in 8 or 16 bits (intgemm) are
stored transposed, except embeddings, and are followed by their scale.
"""

import io
import os
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.library_errors import library_errors
from data.npz import read_npz
from data.regular_file import check_holes, open_regular

SETTINGS = "special:model.yml"
_VERSION = 1
_DTYPES = {0x101: np.int8, 0x404: np.float32, 0x408: np.float64}
_INTGEMM = {0x4101: np.int8, 0x4102: np.int16}  # without a CPU-specific layout
_AXES = 8  # maximum per array


def read_items(file: Path) -> tuple[dict[str, np.ndarray], bytes]:
    """Read a model's arrays as float32, and its YAML settings; raises DataError if incomplete."""
    with library_errors(f"{file} is corrupt or not a model of Marian"):
        items = read_npz(file) if file.suffix == ".npz" else dict(_binary(file))
        stored = items.pop(SETTINGS, None)
        text = None if stored is None else bytes(stored.astype(np.int8)).rstrip(b"\0")
        items = {name: np.asarray(x, np.float32) for name, x in items.items()}
    if text is None:
        raise DataError(f"{file} lacks {SETTINGS}: it is not a complete model of Marian")
    for name, x in items.items():
        if not np.isfinite(x).all():
            raise DataError(f"{file}: {name} has non-finite numbers: it is corrupt")
    return items, text


def _binary(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    with open_regular(file) as stored:
        check_holes(stored, file)
        size = os.fstat(stored.fileno()).st_size
        content = io.BytesIO(stored.read())

    def unpack(layout: str) -> tuple:
        return struct.unpack(f"<{layout}", read(struct.calcsize(f"<{layout}")))

    def read(count: int) -> bytes:
        if not 0 <= count <= size - content.tell():
            raise ValueError(f"it has only {size} bytes, fewer than its headers announce")
        return content.read(count)

    version, count = unpack("QQ")
    if version != _VERSION:
        raise ValueError(f"it has version {version}, not {_VERSION}")
    headers = [unpack("QQQQ") for _ in range(min(count, size))]
    names = [read(length).rstrip(b"\0").decode() for length, *_ in headers]
    shapes = [unpack(f"{min(axes, size)}i") for _, _, axes, _ in headers]
    read(*unpack("Q"))
    for name, shape, (_, type_code, _, length) in zip(names, shapes, headers, strict=True):
        yield name, _array(name, shape, type_code, read(length))


def _array(name: str, shape: tuple[int, ...], type_code: int, data: bytes) -> np.ndarray:
    if len(shape) > _AXES or min(shape, default=0) < 0:
        raise ValueError(f"{name} has an invalid shape")
    if type_code in _DTYPES:
        return np.frombuffer(data, _DTYPES[type_code], prod(shape)).reshape(shape)
    if type_code not in _INTGEMM:
        raise ValueError(f"{name} has the type {type_code:#x}, which is not supported")
    values = np.frombuffer(data, _INTGEMM[type_code], prod(shape))
    (scale,) = np.frombuffer(data, np.float32, 1, offset=values.nbytes)
    if not np.isfinite(scale) or not scale:
        raise ValueError(f"{name} has the invalid scale {scale}")
    if "Wemb" in name:
        return values.reshape(shape) / scale
    rows, columns = shape
    return np.ascontiguousarray(values.reshape(columns, rows).T) / scale
