"""PyTorch's archives, read without PyTorch: nothing that is in them is ever imported or run.

A .pt of 2020 or later is a zip archive of one pickle and the numbers of each tensor. A pickle is a
program, that names functions and has them called. Here it gets tensors without their numbers, and,
in the place of settings' classes, dictionaries of what their objects hold; any other name is an
error, and is not looked up. What a checkpoint has beside its weights is never read.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from data.corpus import DataError

_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_FLOATS = {"FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage"}
_SETTINGS = ("argparse", "fairseq", "omegaconf", "numpy")  # packages whose classes they are of
_VALUES = {
    *(f"{builtins}.{name}" for builtins in ("builtins", "__builtin__")
      for name in ("bool", "dict", "float", "int", "list", "str")),
    *("_codecs.encode", "collections.defaultdict", "typing.Any", "torch.Size", "torch.device"),
}  # fmt: skip


class Bag(dict):
    """What stands for an object: its attributes, or its items."""

    def __new__(cls, *arguments, **named):
        return super().__new__(cls)

    def __init__(self, *arguments, **named):
        super().__init__()

    def __setstate__(self, state):
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(part)

    def append(self, item):
        """What a list would keep."""

    def extend(self, items):
        """What a list would keep."""


class Stored(NamedTuple):
    """A tensor whose numbers are still in the archive."""

    kind: str  # a key of _TYPES
    key: str  # of the file in the archive
    count: int  # of the numbers there
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Storage(NamedTuple):
    kind: str
    key: str
    count: int


def _tensor(storage: _Storage, offset, size, stride, *rest) -> Stored:
    whole = [offset, storage.count, *size, *stride]
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in whole):
        raise ValueError("a tensor of no shape")
    return Stored(*storage, offset, tuple(size), tuple(stride))


def _parameter(tensor: Stored, *rest) -> Stored:
    return tensor


def _ordered(*arguments) -> Bag:
    return Bag()


_CALLS = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Path, content: bytes):
        super().__init__(io.BytesIO(content))
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for here; raises DataError for those that are not known."""
        full = f"{module}.{name}"
        if full in _CALLS:
            return _CALLS[full]
        if module == "torch" and name in _TYPES:
            return name
        if full in _VALUES or module.partition(".")[0] in _SETTINGS:
            return Bag
        shown = full.encode("unicode_escape").decode()[:100]
        raise DataError(
            f"{self._file} holds more than tensors and settings ({shown}), and what is in it could "
            "be a program: it is not opened"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Where the numbers of a tensor are."""
        _, kind, key, _, count = pid
        if kind not in _TYPES or not isinstance(key, str):
            raise ValueError("a tensor of no kind")
        return _Storage(kind, key, count)


def read_content(file: Path) -> Any:
    """What is in an archive, its tensors as `Stored`; raises DataError."""
    pickled = read_pickle(file)
    try:
        return _Unpickler(file, pickled).load()
    except DataError:
        raise
    except Exception as error:  # of many kinds, as of damaged files
        raise damaged(file, error) from None


def read_pickle(file: Path) -> bytes:
    """The pickle of an archive; raises DataError."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.read(_name(archive))
    except Exception as error:
        raise damaged(file, error) from None


def read_arrays(file: Path, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The numbers of those `tensors` that are of floats, as float32; raises DataError."""
    try:
        with zipfile.ZipFile(file) as archive:
            root = _name(archive).removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise ValueError("its numbers are big-endian")
            return {
                name: _array(stored, archive.read(f"{root}data/{stored.key}"))
                for name, stored in tensors.items()
                if isinstance(stored, Stored) and stored.kind in _FLOATS
            }
    except Exception as error:
        raise damaged(file, error) from None


def damaged(file: Path, error: Exception) -> DataError:
    """What is wrong with an archive, in a line."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"{file} is damaged or older than PyTorch's archives (2020): {reason}")


def _name(archive: zipfile.ZipFile) -> str:
    found = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(found) != 1:
        raise ValueError("there is no data.pkl in it")
    return found[0]


def _array(stored: Stored, content: bytes) -> np.ndarray:
    numbers = np.frombuffer(content, _TYPES[stored.kind])
    last = sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
    # Without these a shape could reach beyond what is there, or be larger than any memory.
    whole = len(numbers) == stored.count >= prod(stored.size)
    if not whole or (prod(stored.size) and stored.offset + last >= stored.count):
        raise ValueError("a tensor is not what its shape says")
    steps = [step * numbers.itemsize for step in stored.stride]
    # A start beyond the end is an empty tensor's: it has no numbers.
    view = np.lib.stride_tricks.as_strided(numbers[stored.offset :], stored.size, steps)
    return np.array(view, np.float32, order="C")
