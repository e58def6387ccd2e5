"""Read PyTorch archives without PyTorch: a pickle, and the data of each tensor.

A .pt or .bin of 2020 or later is a zip archive of both. Older files are a stream: three pickles
that identify the format, the content, the names of the storages, and for each name its element
count and data. Other parts of a checkpoint are not read.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data.library_errors import library_errors
from data.regular_file import check_holes, open_regular
from data.zip_archive import ZipArchive, open_zip
from interop.unpickle import MAX_BYTES, TYPES, LazyTensor, Storage, Unpickler, unpickle

_FLOATS = {"FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage"}
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # first values of the old format
_NAMES = 4  # maximum names of a tied table: shared, encoder, decoder, output
_MIN_ELEMENTS = 1 << 20  # allowed in every archive, independent of the stored size


def read_content(file: Path) -> Any:
    """Read an archive's content, with tensors as `LazyTensor`; raises DataError."""
    with _corruption_errors(file):
        if _is_zip(file):
            with open_zip(file) as archive:
                return unpickle(file, _pickle(archive))[0]
        with _open_stream(file) as stream:
            return _read_stream(file, stream)[0]


def read_arrays(file: Path, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read the float tensors among `tensors` as read-only float32 arrays; raises DataError.

    Tensors that share storage in the file share it here. Their total size may be at most a few
    times the stored size, as with tied tables.
    """
    floats = {
        name: tensor
        for name, tensor in tensors.items()
        if isinstance(name, str)
        and isinstance(tensor, LazyTensor)
        and tensor.storage.kind in _FLOATS
    }
    with _corruption_errors(file):
        storages = {tensor.storage.key: tensor.storage for tensor in floats.values()}
        stored = sum(storage.count for storage in storages.values())
        if sum(prod(tensor.size) for tensor in floats.values()) > _NAMES * stored + _MIN_ELEMENTS:
            raise ValueError(f"its tensors have many times the {stored:,} stored numbers")
        with _open_storages(file) as read:
            arrays = {key: _floats(storage, read(storage)) for key, storage in storages.items()}
        return {name: _view(tensor, arrays[tensor.storage.key]) for name, tensor in floats.items()}


def _corruption_errors(file: Path) -> AbstractContextManager:
    return library_errors(f"{file} is corrupt or not an archive of PyTorch")


def _is_zip(file: Path) -> bool:
    with open_regular(file) as content:
        return content.read(4) == b"PK\3\4"


@contextmanager
def _open_storages(file: Path) -> Iterator[Callable[[Storage], bytes]]:
    """Context with a function that reads the bytes of a storage."""
    if _is_zip(file):
        with open_zip(file) as archive:
            root = _name(archive).removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in archive.names and archive.read(order) != b"little":
                raise ValueError("its numbers are big-endian")
            yield lambda storage: archive.read(f"{root}data/{storage.key}")
    else:
        with _open_stream(file) as stream:
            _, offsets = _read_stream(file, stream)

            def read(storage: Storage) -> bytes:
                stream.seek(offsets[storage.key])
                return stream.read(storage.count * TYPES[storage.kind].itemsize)

            yield read


def _pickle(archive: ZipArchive) -> bytes:
    content = archive.read(_name(archive))
    if len(content) > MAX_BYTES:
        raise ValueError(f"its data.pkl has more than {MAX_BYTES:,} bytes")
    return content


def _name(archive: ZipArchive) -> str:
    names = [name for name in archive.names if name.split("/")[1:] == ["data.pkl"]]
    if len(names) != 1:
        raise ValueError("it has no data.pkl")
    return names[0]


@contextmanager
def _open_stream(file: Path) -> Iterator[BinaryIO]:
    with open_regular(file) as stream:
        check_holes(stream, file)
        yield stream


def _read_stream(file: Path, stream: BinaryIO) -> tuple[Any, dict[str, int]]:
    """Content of an archive from before 2020, and the data offset of each storage."""
    pickles = io.BytesIO(stream.read(MAX_BYTES))

    def load() -> tuple[Any, dict[str, Storage]]:
        reader = Unpickler(file, pickles)
        return reader.load(), reader.storages

    if load()[0] != _MAGIC or load()[0] != _VERSION:
        raise ValueError("it has another magic number or version")
    machine, _ = load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are big-endian")
    content, storages = load()
    keys, _ = load()
    size, position = os.fstat(stream.fileno()).st_size, pickles.tell()
    if type(keys) is not list or len(keys) != len(storages):
        raise ValueError("its storage names do not match its storages")
    offsets = {}
    for key in keys:
        storage = storages[key]
        stream.seek(position)
        count = int.from_bytes(stream.read(8), "little")
        offsets[key] = position + 8
        position += 8 + storage.count * TYPES[storage.kind].itemsize
        if count != storage.count or position > size:
            raise ValueError("it is shorter than its storages")
    return content, offsets


def _floats(storage: Storage, content: bytes) -> np.ndarray:
    numbers = np.frombuffer(content, TYPES[storage.kind])
    if len(numbers) != storage.count:
        raise ValueError("a tensor does not match its shape")
    return np.asarray(numbers, np.float32)


def _view(tensor: LazyTensor, numbers: np.ndarray) -> np.ndarray:
    count = prod(tensor.size)
    last_index = sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    # Otherwise a shape could read out of bounds, or exceed the memory.
    if count > len(numbers) or (count and tensor.offset + last_index >= len(numbers)):
        raise ValueError("a tensor does not match its shape")
    if not count:
        return np.zeros(tensor.size, np.float32)
    steps = [step * numbers.itemsize for step in tensor.stride]
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.size, steps, writeable=False
    )
    return view
