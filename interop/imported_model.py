"""ImportedModel, the result of an importer, and the conversion of parameters to Heed's layout."""

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

MASKED_LOGIT = -100.0  # of an id that is never output: exp(-100) is negligible
_MAX_ADDED_IDS = 4  # maximum of ids that Heed adds to an imported vocabulary
_MAX_DISTANCE = 1 << 20  # positions: the size of a table with an entry for each distance


class ImportedModel(NamedTuple):
    """Experiment, vocabulary, parameters and shortlist of an imported model."""

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
    """Raise DataError if a size in `model` needs more weights than there are.

    The weights are `num_tensors` arrays of `num_elements` numbers in total. The check allocates
    nothing; call it before any loop, shape or trace that depends on a size. The settings are in
    `file`.
    """
    layers = ("encoder_layers",), ("decoder_layers",)
    added_elements = _MAX_ADDED_IDS * model.d_model
    products = [
        (("d_model",), 0),
        (("vocab_size", "d_model"), added_elements),
        (("target_vocab", "d_model"), added_elements),
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
    for names, spare, available, unit in limits:
        sizes = {name: getattr(model, name) for name in names}
        if prod(sizes.values()) - spare > available:
            values = " and ".join(f"{_SETTINGS.get(k, f'model.{k}')}={v}" for k, v in sizes.items())
            raise DataError(
                f"{file}: {values} would need more {unit} than the weights have, {available:,}"
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


class TensorReader:
    """Read arrays of a file by name; `requested` are the names so far."""

    def __init__(self, file: Path, arrays: dict[str, np.ndarray], settings: str):
        self._file, self._arrays, self._settings = file, arrays, settings
        self.requested: set[str] = set()

    def read(self, shape: tuple[int, ...], *names: str) -> np.ndarray:
        """Return the first array that exists among `names`.

        Raises DataError if there is none, if it has non-finite numbers, or if its shape does not
        match the model's settings, which are in the file `settings`.
        """
        self.requested.update(names)
        for name in names:
            if name in self._arrays:
                array = self._arrays[name]
                if array.shape != shape:
                    raise DataError(
                        f"{self._file}: {name} has the shape {list(array.shape)}, not "
                        f"{list(shape)} as in {self._settings}"
                    )
                if not np.isfinite(array).all():
                    raise DataError(f"{self._file}: {name} has non-finite numbers: it is corrupt")
                return array
        raise DataError(f"{self._file} lacks {names[0]}, required by {self._settings}")

    def table_reader(
        self, tables: Mapping[str, tuple[str, ...]]
    ) -> Callable[[str, tuple[int, int]], np.ndarray]:
        """Make the `table` of `embedding_params`, which reads the first of `tables[name]`."""
        return lambda name, shape: self.read(shape, *tables[name])

    def read_or_zeros(self, shape: tuple[int, ...], name: str) -> np.ndarray:
        """Return the array, or zeros if it is missing; raises DataError as `read` does."""
        return self.read(shape, name) if name in self._arrays else np.zeros(shape, np.float32)


_LAYER = re.compile(r"(?<=^encoder|^decoder)_\d+$")


def layer_params(
    model: TransformerConfig, names: Iterable[ParamName], arrays: TensorReader
) -> dict[str, Any]:
    """Convert the parameters of encoder and decoder layers."""
    # All layers of a side have equal shapes; tracing a single one saves time.
    boxes = param_shapes(Transformer(replace(model, encoder_layers=1, decoder_layers=1)))
    params: dict[str, Any] = {}
    for name in names:
        box, module = boxes, params
        for key in name.param_path[:-1]:
            box = box[_LAYER.sub("_0", key)]
            module = module.setdefault(key, {})
        shape = box[name.param_path[-1]].value.shape
        array = arrays.read(name.size(shape), name.their_name)
        module[name.param_path[-1]] = name.load(array, shape)
    return params


def embedding_params(
    model: TransformerConfig,
    id_maps: Sequence[np.ndarray],
    num_added_ids: int,
    table: Callable[[str, tuple[int, int]], np.ndarray],
    bias: np.ndarray,
) -> dict[str, Any]:
    """Convert embeddings, output projection and its `bias` to the order of Heed's ids.

    `table(name, shape)` returns the file's [V,D] of "all", "source", "target" or "output"; the
    first `num_added_ids` ids exist only in Heed.
    """

    def reordered(name: str, order: np.ndarray) -> np.ndarray:
        return reorder_rows(
            table(name, (len(order) - num_added_ids, model.d_model)), order, num_added_ids
        )

    params: dict[str, Any] = {
        "output_bias": reorder_rows(bias, id_maps[1], num_added_ids, MASKED_LOGIT)
    }
    if model.tying == "all":
        params["embedding"] = {"table": reordered("all", id_maps[1])}
    else:
        for side, order in zip(("source", "target"), id_maps, strict=True):
            params[f"{side}_embedding"] = {"table": reordered(side, order)}
    if model.tying == "none":
        params["output"] = np.ascontiguousarray(reordered("output", id_maps[1]).T)
    return params


def reorder_rows(
    array: np.ndarray, order: np.ndarray, num_added_ids: int, fill: float = 0.0
) -> np.ndarray:
    """Reorder a table or bias to Heed's ids; the first `num_added_ids` ids are new: `fill`."""
    result = array[order]
    result[:num_added_ids] = fill
    return result
