"""What the importers share: what a run begins with, and tables in the order of our ids."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.tokenizer import Vocabulary
from experiments.config import Experiment
from model import Transformer, TransformerConfig

UNSAID = -100.0  # the logit of an id that is never said: exp(-100) is nothing beside the others'


class Imported(NamedTuple):
    """What a run consists of before its first step."""

    experiment: Experiment
    vocabulary: Vocabulary
    params: dict[str, Any]


def shapes(model: TransformerConfig) -> Any:
    """The model's parameters as shapes in boxes of logical names."""
    ids = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(Transformer(model).init, jax.random.key(0), ids, ids)["params"]


def shape_of(boxes: Any, path: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of the parameter at `path`."""
    for key in path:
        boxes = boxes[key]
    return boxes.value.shape


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
