"""ImportedModel: what an importer returns, and parameters in the order of new ids."""

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

UNSAID = -100.0  # the logit of an id that is never said: exp(-100) is nothing beside the others'
_OWN = 4  # ids at most that a vocabulary here has beyond theirs
_FARTHEST = 1 << 20  # positions: each distance up to the longest has an entry in a table


class ImportedModel(NamedTuple):
    """What a run consists of before its first step."""

    experiment: Experiment
    vocabulary: Vocabulary
    params: dict[str, Any]
    shortlist: Shortlist | None = None  # of words that its outputs may have


class ParamName(Protocol):
    """A parameter of a layer: its name there, its path here, and how the one becomes the other."""

    @property
    def their_name(self) -> str: ...

    @property
    def param_path(self) -> tuple[str, ...]: ...

    def size(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of their array, where our parameter has this one."""

    def load(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Their array as our parameter of this shape."""


def check_sizes(file: Path, model: TransformerConfig, num_tensors: int, num_elements: int) -> None:
    """Raises DataError where a size in `model` is beyond what the weights can fill.

    The weights are `num_tensors` arrays of `num_elements` numbers in all. It allocates nothing and
    costs nothing, so it comes before anything that a size decides: loops, shapes, traces. `file`
    has the settings.
    """
    layers = ("encoder_layers",), ("decoder_layers",)
    own = _OWN * model.d_model
    products = [
        (("d_model",), 0),
        (("vocab_size", "d_model"), own),
        (("target_vocab", "d_model"), own),
        (("d_model", "d_ff"), 0),
        (("d_model", "num_heads", "key_width"), 0),
        (("d_model", "num_heads", "value_width"), 0),
        *(((name, "d_model"), 0) for (name,) in layers),  # each has a norm's scale at least
    ]
    if model.positions == "learned":
        products.append((("max_length", "d_model"), 0))
    if model.positions == "t5_bias":
        products.append((("relative_num_buckets", "num_heads"), 0))
    limits: list[tuple[tuple[str, ...], int, int, str]] = []
    if not model.scan_layers:
        limits += [(names, 0, num_tensors, "tensors") for names in layers]
    limits += [(*product, num_elements, "numbers") for product in products]
    for names, param_path, there, kind in limits:
        sizes = {name: getattr(model, name) for name in names}
        if prod(sizes.values()) - param_path > there:
            told = " and ".join(f"{_SETTINGS.get(k, f'model.{k}')}={v}" for k, v in sizes.items())
            raise DataError(
                f"{file}: {told} would need more {kind} than the weights have, {there:,}"
            )
    if model.positions == "t5_bias" and model.relative_max_distance > _FARTHEST:
        raise DataError(
            f"{file}: model.relative_max_distance={model.relative_max_distance} must be at most "
            f"{_FARTHEST}"
        )


_SETTINGS = {  # of properties that are derived
    "target_vocab": "model.target_vocab_size",
    "key_width": "model.d_k",
    "value_width": "model.d_v",
}


def count(tensors: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """How many tensors there are, and how many numbers in all of them."""
    return len(tensors), sum(x.size for x in tensors.values())


class Arrays:
    """What a file holds, taken by name; `asked` are the names that were asked for."""

    def __init__(self, file: Path, arrays: dict[str, np.ndarray], told_by: str):
        self._file, self._arrays, self._told_by = file, arrays, told_by
        self.asked: set[str] = set()

    def take(self, shape: tuple[int, ...], *names: str) -> np.ndarray:
        """The first of these arrays that there is.

        Raises DataError where there is none, where it has numbers that are not finite, or another
        shape than the model's settings, which are in `told_by`, would have it.
        """
        self.asked.update(names)
        for name in names:
            if name in self._arrays:
                found = self._arrays[name]
                if found.shape != shape:
                    raise DataError(
                        f"{self._file}: {name} is {list(found.shape)}, but by {self._told_by} it "
                        f"would be {list(shape)}"
                    )
                if not np.isfinite(found).all():
                    raise DataError(
                        f"{self._file}: {name} has numbers that are not finite: it is damaged"
                    )
                return found
        raise DataError(f"{self._file} lacks {names[0]}, which by {self._told_by} it would have")

    def find(self, shape: tuple[int, ...], name: str) -> np.ndarray:
        """The array, or zeros where there is none; raises DataError as `take` does."""
        return self.take(shape, name) if name in self._arrays else np.zeros(shape, np.float32)


_LAYER = re.compile(r"(?<=^encoder|^decoder)_\d+$")


def layers(model: TransformerConfig, names: Iterable[ParamName], arrays: Arrays) -> dict[str, Any]:
    """The parameters of encoder and decoder layers."""
    # All layers of a side are alike, and tracing costs time for each: one stands for all.
    boxes = param_shapes(Transformer(replace(model, encoder_layers=1, decoder_layers=1)))
    params: dict[str, Any] = {}
    for named in names:
        box, place = boxes, params
        for key in named.param_path[:-1]:
            box = box[_LAYER.sub("_0", key)]
            place = place.setdefault(key, {})
        shape = box[named.param_path[-1]].value.shape
        their_name = arrays.take(named.size(shape), named.their_name)
        place[named.param_path[-1]] = named.load(their_name, shape)
    return params


def words(
    model: TransformerConfig,
    id_maps: Sequence[np.ndarray],
    own: int,
    table: Callable[[str, tuple[int, int]], np.ndarray],
    bias: np.ndarray,
) -> dict[str, Any]:
    """Embeddings, the output's projection and its `bias`, in the order of our ids.

    `table(which, shape)` is theirs [V,D], of "all", "source", "target" or "output"; the first `own`
    ids are ours alone.
    """

    def param_path(which: str, order: np.ndarray) -> np.ndarray:
        return rows(table(which, (len(order) - own, model.d_model)), order, own)

    found: dict[str, Any] = {"output_bias": rows(bias, id_maps[1], own, UNSAID)}
    if model.tying == "all":
        found["embedding"] = {"table": param_path("all", id_maps[1])}
    else:
        for which, order in zip(("source", "target"), id_maps, strict=True):
            found[f"{which}_embedding"] = {"table": param_path(which, order)}
    if model.tying == "none":
        found["output"] = np.ascontiguousarray(param_path("output", id_maps[1]).T)
    return found


def rows(their_name: np.ndarray, order: np.ndarray, own: int, fill: float = 0.0) -> np.ndarray:
    """A table or a bias in the order of our ids, the first `own` of which are ours alone."""
    param_path = their_name[order]
    param_path[:own] = fill
    return param_path
