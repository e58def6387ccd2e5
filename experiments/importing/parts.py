"""What the importers share: what a run begins with, and tables in the order of our ids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.corpus import DataError
from data.tokenizer import Vocabulary
from decode.shortlist import Shortlist
from experiments.config import Experiment
from model import Transformer, TransformerConfig

UNSAID = -100.0  # the logit of an id that is never said: exp(-100) is nothing beside the others'


class Imported(NamedTuple):
    """What a run consists of before its first step."""

    experiment: Experiment
    vocabulary: Vocabulary
    params: dict[str, Any]
    shortlist: Shortlist | None = None  # of words that its outputs may have


def shapes(model: TransformerConfig) -> Any:
    """The model's parameters as shapes in boxes of logical names."""
    ids = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(Transformer(model).init, jax.random.key(0), ids, ids)["params"]


def shape_of(boxes: Any, path: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of the parameter at `path`."""
    for key in path:
        boxes = boxes[key]
    return boxes.value.shape


def taker(file: Path, arrays: dict[str, np.ndarray], told_by: str) -> Callable[..., np.ndarray]:
    """A function (shape, name, other names ..) -> the first of these arrays that there is.

    It raises DataError where there is none, or one of another shape than is `told_by` what.
    """

    def take(shape: tuple[int, ...], *candidates: str) -> np.ndarray:
        for name in candidates:
            if name in arrays:
                if arrays[name].shape != shape:
                    raise DataError(
                        f"{file}: {name} is {list(arrays[name].shape)}, but by {told_by} it would "
                        f"be {list(shape)}"
                    )
                return arrays[name]
        raise DataError(f"{file} lacks {candidates[0]}, which by {told_by} it would have")

    return take


def rows(theirs: np.ndarray, order: np.ndarray, own: int = 1, fill: float = 0.0) -> np.ndarray:
    """A table or a bias in the order of our ids, the first `own` of which are ours alone."""
    ours = theirs[order]
    ours[:own] = fill
    return ours


def put(tree: dict[str, Any], path: tuple[str, ...], leaf: np.ndarray) -> None:
    """Puts a leaf into a tree of dicts, which grows where it must."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf
