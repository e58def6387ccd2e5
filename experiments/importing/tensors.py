"""Tensors from files, as numpy arrays in float32; nothing in a file is ever executed."""

import importlib
import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open

from data.corpus import DataError
from data.json_file import read_json
from experiments.importing.archive import damaged, read_pickle

# What a file of nothing but tensors names; anything else is not even looked at by PyTorch.
_HARMLESS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int")),
}
_FLOATS = {"F64", "F32", "F16", "BF16"}


class _Index(msgspec.Struct):
    """Which file has which tensor."""

    weight_map: dict[str, str]


def read_tensors(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The weights of a Hugging Face folder, by name, and the file that they are from.

    Raises DataError where there are none, or where they are not whole.
    """
    for name, read in ("model.safetensors", _safetensors), ("pytorch_model.bin", _pickled):
        file, index = folder / name, folder / f"{name}.index.json"
        if file.exists():
            return file, dict(read(file))
        if index.exists():
            tensors: dict[str, np.ndarray] = {}
            for part in _shards(index):
                tensors |= read(part)
            return index, tensors
    raise DataError(f"{folder}: there is neither model.safetensors nor pytorch_model.bin")


def _shards(index: Path) -> list[Path]:
    """The files that an index names, which are beside it; raises DataError."""
    listed = read_json(index, _Index).weight_map
    files = [index.parent / Path(name).name for name in sorted(set(listed.values()))]
    for file in files:
        if not file.exists():
            raise DataError(f"{file} is missing, which {index.name} names")
    return files


def _safetensors(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with safe_open(file, "flax" if _has_bfloat16(file) else "numpy") as tensors:
            for name in tensors.keys():
                if tensors.get_slice(name).get_dtype() in _FLOATS:
                    yield name, np.asarray(tensors.get_tensor(name), np.float32)
    except (SafetensorError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file} is damaged or no safetensors file: {reason}") from None


def _has_bfloat16(file: Path) -> bool:
    """Whether numpy alone cannot hold what is in it."""
    with safe_open(file, "numpy") as tensors:
        return any(tensors.get_slice(name).get_dtype() == "BF16" for name in tensors.keys())


def _pickled(file: Path) -> dict[str, np.ndarray]:
    """By PyTorch's loader of tensors alone, where it is installed."""
    for named in _named_in(file):
        if named not in _HARMLESS:
            raise DataError(
                f"{file} holds more than tensors ({named.replace(' ', '.')}), and what is in it "
                "could be a program: it is not opened"
            )
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise DataError(
            f"{file} is PyTorch's own format: pip install torch to read it, or have it saved as "
            "model.safetensors"
        ) from None
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        return {
            name: tensor.float().numpy()
            for name, tensor in found.items()
            if tensor.is_floating_point()
        }
    except Exception as error:  # of many kinds, as of damaged files
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{file} is damaged or holds more than tensors: {reason}") from None


def _named_in(file: Path) -> Iterator[str]:
    """What the pickles in PyTorch's file would have looked up: read as text, not run.

    Of names that a pickle takes from its memo this knows nothing: these PyTorch's loader refuses.
    """
    if zipfile.is_zipfile(file):
        pickles, count = io.BytesIO(read_pickle(file)), 1
    else:  # of before 2020: a magic number, a version, the machine, the tensors, the storages
        pickles, count = io.BytesIO(file.read_bytes()), 5
    try:
        for _ in range(count):
            strings: list[str] = []
            for opcode, argument, _ in pickletools.genops(pickles):
                if opcode.name in ("GLOBAL", "INST"):
                    yield argument
                elif opcode.name == "STACK_GLOBAL":
                    yield " ".join(strings[-2:])
                elif isinstance(argument, str):
                    strings.append(argument)
    except (ValueError, EOFError) as error:
        raise damaged(file, error) from None
