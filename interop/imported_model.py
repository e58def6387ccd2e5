"""ImportedModel: the result of an importer; parameters in the order of Heed's ids."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from data.errors import DataError
from data.vocabulary import Vocabulary
from decode.shortlist import Shortlist
from experiments.config import Experiment
from model import Transformer, TransformerConfig
from train.state import param_shapes

UNSAID = -100.0  # the logit of an id that is never output: exp(-100) is negligible
_MAX_NEW = 4  # most ids that a vocabulary of Heed adds to the imported one
_MAX_DISTANCE = 1 << 20  # positions: a table has an entry for each distance up to the largest


class ImportedModel(NamedTuple):
    """Experiment, vocabulary and parameters of a run before its first step."""

    experiment: Experiment
    vocabulary: Vocabulary
    params: dict[str, Any]
    shortlist: Shortlist | None = None  # of output words


class ParamName(Protocol):
    """A layer parameter: its name in the file, its path in Heed, and the conversion."""

    @property
    def their_name(self) -> str: ...

    @property
    def param_path(self) -> tuple[str, ...]: ...

    def size(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the file's array for a Heed parameter of this shape."""

    def load(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Convert the file's array to a Heed parameter of this shape."""


def check_sizes(file: Path, model: TransformerConfig, num_tensors: int, num_elements: int) -> None:
    """Raise DataError if a size in `model` is larger than the weights can fill.

    The weights are `num_tensors` arrays of `num_elements` numbers in total. The check allocates
    nothing, so call it before anything that depends on a size: loops, shapes, traces. `file` has
    the settings.
    """
    layers = ("encoder_layers",), ("decoder_layers",)
    new_numbers = _MAX_NEW * model.d_model
    products = [
        (("d_model",), 0),
        (("vocab_size", "d_model"), new_numbers),
        (("target_vocab", "d_model"), new_numbers),
        (("d_model", "d_ff"), 0),
        (("d_model", "num_heads", "key_width"), 0),
        (("d_model", "num_heads", "value_width"), 0),
        *(((name, "d_model"), 0) for (name,) in layers),  # each has at least the scale of a norm
    ]
    if model.positions == "learned":
        products.append((("max_length", "d_model"), 0))
    if model.positions == "t5_bias":
        products.append((("relative_num_buckets", "num_heads"), 0))
    limits: list[tuple[tuple[str, ...], int, int, str]] = []
    if not model.scan_layers:
        limits += [(names, 0, num_tensors, "tensors") for names in layers]
    limits += [(*product, num_elements, "numbers") for product in products]
    for names, spare, available, kind in limits:
        sizes = {name: getattr(model, name) for name in names}
        if prod(sizes.values()) - spare > available:
            values = " and ".join(f"{_SETTINGS.get(k, f'model.{k}')}={v}" for k, v in sizes.items())
            raise DataError(
                f"{file}: {values} would need more {kind} than the weights have, {available:,}"
            )
    if model.positions == "t5_bias" and model.relative_max_distance > _MAX_DISTANCE:
        raise DataError(
            f"{file}: model.relative_max_distance={model.relative_max_distance} must be at most "
            f"{_MAX_DISTANCE}"
        )


_SETTINGS = {  # names of derived properties
    "target_vocab": "model.target_vocab_size",
    "key_width": "model.d_k",
    "value_width": "model.d_v",
}


def count(tensors: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Number of tensors, and number of elements in all of them."""
    return len(tensors), sum(x.size for x in tensors.values())


class Arrays:
    """Arrays of a file, taken by name; `asked` are the requested names."""

    def __init__(self, file: Path, arrays: dict[str, np.ndarray], settings: str):
        self._file, self._arrays, self._settings = file, arrays, settings
        self.asked: set[str] = set()

    def take(self, shape: tuple[int, ...], *names: str) -> np.ndarray:
        """Take the first array that exists among `names`.

        Raises DataError if there is none, if it has numbers that are not finite, or if its shape
        does not match the model's settings, which are in the file `settings`.
        """
        self.asked.update(names)
        for name in names:
            if name in self._arrays:
                array = self._arrays[name]
                if array.shape != shape:
                    raise DataError(
                        f"{self._file}: {name} is {list(array.shape)}, but by {self._settings} it "
                        f"would be {list(shape)}"
                    )
                if not np.isfinite(array).all():
                    raise DataError(
                        f"{self._file}: {name} has numbers that are not finite: it is corrupt"
                    )
                return array
        raise DataError(f"{self._file} lacks {names[0]}, which by {self._settings} it would have")

    def find(self, shape: tuple[int, ...], name: str) -> np.ndarray:
        """The array, or zeros if it is missing; raises DataError as `take` does."""
        return self.take(shape, name) if name in self._arrays else np.zeros(shape, np.float32)


_LAYER = re.compile(r"(?<=^encoder|^decoder)_\d+$")


def layers(model: TransformerConfig, names: Iterable[ParamName], arrays: Arrays) -> dict[str, Any]:
    """Convert the parameters of encoder and decoder layers."""
    # All layers of a side are equal, and tracing each takes time: trace one.
    boxes = param_shapes(Transformer(replace(model, encoder_layers=1, decoder_layers=1)))
    params: dict[str, Any] = {}
    for named in names:
        box, module = boxes, params
        for key in named.param_path[:-1]:
            box = box[_LAYER.sub("_0", key)]
            module = module.setdefault(key, {})
        shape = box[named.param_path[-1]].value.shape
        array = arrays.take(named.size(shape), named.their_name)
        module[named.param_path[-1]] = named.load(array, shape)
    return params


def words(
    model: TransformerConfig,
    id_maps: Sequence[np.ndarray],
    num_new: int,
    table: Callable[[str, tuple[int, int]], np.ndarray],
    bias: np.ndarray,
) -> dict[str, Any]:
    """Embeddings, output projection and its `bias`, in the order of Heed's ids.

    `table(which, shape)` returns the file's [V,D], of "all", "source", "target" or "output"; the
    first `num_new` ids exist in Heed only.
    """

    def reordered(which: str, order: np.ndarray) -> np.ndarray:
        return rows(table(which, (len(order) - num_new, model.d_model)), order, num_new)

    params: dict[str, Any] = {"output_bias": rows(bias, id_maps[1], num_new, UNSAID)}
    if model.tying == "all":
        params["embedding"] = {"table": reordered("all", id_maps[1])}
    else:
        for which, order in zip(("source", "target"), id_maps, strict=True):
            params[f"{which}_embedding"] = {"table": reordered(which, order)}
    if model.tying == "none":
        params["output"] = np.ascontiguousarray(reordered("output", id_maps[1]).T)
    return params


def rows(array: np.ndarray, order: np.ndarray, num_new: int, fill: float = 0.0) -> np.ndarray:
    """Reorder a table or a bias to Heed's ids, the first `num_new` of which exist in Heed only."""
    result = array[order]
    result[:num_new] = fill
    return result
