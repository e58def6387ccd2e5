"""Marian's own model files, .npz and .bin: their arrays by name, and the settings among them.

A .bin is a version, a count, a header for each array (lengths of its name, shape and data, and its
type), all names, all shapes, and after some padding all data. Matrices in 8 or 16 bits (intgemm)
lie transposed, but for embeddings, and the number that they were multiplied by follows them.
"""

import io
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.corpus import DataError

SETTINGS = "special:model.yml"
_VERSION = 1
_PLAIN = {0x101: np.int8, 0x404: np.float32, 0x408: np.float64}
_INTGEMM = {0x4101: np.int8, 0x4102: np.int16}  # not arranged for one kind of CPU


def read_items(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a model, float32, and its settings; raises DataError where it is not whole."""
    try:
        items = dict(_npz(file) if file.suffix == ".npz" else _binary(file))
        text = items.pop(SETTINGS, None)
        text = None if text is None else bytes(text.astype(np.int8)).rstrip(b"\0")
        items = {name: np.asarray(x, np.float32) for name, x in items.items()}
    except FileNotFoundError as error:
        raise DataError(f"{file}: cannot read it ({error.strerror})") from None
    except Exception as error:  # of many kinds, as of damaged archives
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is damaged or no model of Marian's: {reason}") from None
    if text is None:
        raise DataError(f"{file} lacks {SETTINGS}: it is no whole model of Marian's")
    for name, x in items.items():
        if not np.isfinite(x).all():
            raise DataError(f"{file}: {name} has numbers that are not finite: it is damaged")
    return items, read_yaml(file, text)


def read_yaml(file: Path, text: bytes | None = None) -> dict[str, Any]:
    """A YAML file's table, or that of a `text` in it; raises DataError."""
    return _table(file, text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_ids(file: Path) -> dict[str, str]:
    """A table of words in YAML, where "no" and "007" are words as they stand; raises DataError."""
    return _table(file, None, getattr(yaml, "CBaseLoader", yaml.BaseLoader))


def _table(file: Path, text: bytes | None, loader) -> dict:
    try:  # those in C are ten times as fast
        found = yaml.load(file.read_bytes() if text is None else text, Loader=loader)
    except OSError as error:
        raise DataError(f"{file}: cannot read it ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # or a date that there is not
        raise DataError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise DataError(f"{file} is not a table of settings")
    return found


def _npz(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    with file.open("rb") as content, np.load(content, allow_pickle=False) as arrays:
        yield from ((name, arrays[name]) for name in arrays.files)


def _binary(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    content = io.BytesIO(file.read_bytes())
    size = content.getbuffer().nbytes

    def take(layout: str) -> tuple:
        return struct.unpack(f"<{layout}", some(struct.calcsize(f"<{layout}")))

    def some(count: int) -> bytes:
        if not 0 <= count <= size - content.tell():
            raise ValueError(f"it ends after {size} bytes, before all that it announces")
        return content.read(count)

    version, count = take("QQ")
    if version != _VERSION:
        raise ValueError(f"it begins with {version}, and not with the version {_VERSION}")
    headers = [take("QQQQ") for _ in range(min(count, size))]
    names = [some(length).rstrip(b"\0").decode() for length, *_ in headers]
    shapes = [take(f"{axes}i") for _, _, axes, _ in headers]
    some(*take("Q"))
    for name, shape, (_, kind, _, length) in zip(names, shapes, headers, strict=True):
        yield name, _array(name, shape, kind, some(length))


def _array(name: str, shape: tuple[int, ...], kind: int, data: bytes) -> np.ndarray:
    if kind in _PLAIN:
        return np.frombuffer(data, _PLAIN[kind], prod(shape)).reshape(shape)
    if kind not in _INTGEMM:
        raise ValueError(f"{name} has the type {kind:#x}, which is not supported")
    values = np.frombuffer(data, _INTGEMM[kind], prod(shape))
    (scale,) = np.frombuffer(data, np.float32, 1, offset=values.nbytes)
    if "Wemb" in name:
        return values.reshape(shape) / scale
    rows, columns = shape
    return np.ascontiguousarray(values.reshape(columns, rows).T) / scale
