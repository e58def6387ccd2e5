"""Read tensor files as float32 arrays, without executing code in them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from safetensors import safe_open

from data.errors import DataError
from data.json_file import read_json
from data.library_errors import library_errors
from data.regular_file import check_holes, open_regular
from interop.torch_archive import read_arrays, read_content

_FLOATS = {"F64", "F32", "F16", "BF16"}


class _Index(msgspec.Struct):
    """The file of each tensor."""

    weight_map: dict[str, Annotated[str, Meta(max_length=1000)]]


def read_tensors(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Read the weights of a Hugging Face folder: their file, and tensors by name.

    Raises DataError if there are none, or if they are incomplete.
    """
    for name, read in ("model.safetensors", _safetensors), ("pytorch_model.bin", _pickled):
        file, index = folder / name, folder / f"{name}.index.json"
        if os.path.lexists(file):
            return file, dict(read(file))
        if os.path.lexists(index):
            tensors: dict[str, np.ndarray] = {}
            for shard in _shards(index):
                tensors |= read(shard)
            return index, tensors
    raise DataError(f"{folder}: found no model.safetensors and no pytorch_model.bin")


def _shards(index: Path) -> list[Path]:
    """The files that an index names, in its folder; raises DataError."""
    listed = read_json(index, _Index).weight_map
    files = [index.parent / Path(name).name for name in sorted(set(listed.values()))]
    for file in files:
        if not os.path.exists(file):  # Path.exists raises OSError for invalid file names
            raise DataError(f"{file} is missing, which {index.name} names")
    return files


def _safetensors(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    with open_regular(file) as content:
        check_holes(content, file)
    with library_errors(f"{file} is corrupt or not a safetensors file"):
        framework = "flax" if _has_bfloat16(file) else "numpy"
        with safe_open(file, framework) as tensors:
            for name in tensors.keys():
                if tensors.get_slice(name).get_dtype() in _FLOATS:
                    yield name, np.asarray(tensors.get_tensor(name), np.float32)


def _has_bfloat16(file: Path) -> bool:
    """Whether a file has bfloat16 tensors, which NumPy does not support."""
    with safe_open(file, "numpy") as tensors:
        return any(tensors.get_slice(name).get_dtype() == "BF16" for name in tensors.keys())


def _pickled(file: Path) -> dict[str, np.ndarray]:
    content = read_content(file)
    if not isinstance(content, Mapping):
        raise DataError(f"{file} is not a table of tensors")
    return read_arrays(file, content)
