"""Parameter names of Marian's Transformers; embeddings excluded.

Their matrices are [in, out], as ours are once our heads are one axis; their vectors are [1, out].
"""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from model import TransformerConfig

_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}


class Named(NamedTuple):
    """An array's name there, the path of its parameter here, and how many axes come in."""

    theirs: str
    ours: tuple[str, ...]
    inputs: int  # 0: a vector

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The shape of their array, where our parameter has this one."""
        return prod(shape[: self.inputs]), prod(shape[self.inputs :])

    def here(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Their array as our parameter of this shape."""
        return x.reshape(shape)


def names(c: TransformerConfig) -> Iterator[Named]:
    """All parameters of encoder and decoder layers."""
    for i in range(c.encoder_layers):
        theirs, layer = f"encoder_l{i + 1}", f"encoder_{i}"
        yield from _attention(f"{theirs}_self", layer, "attention", "attention_frame")
        yield from _feed_forward(f"{theirs}_ffn", layer)
    for i in range(c.decoder_layers):
        theirs, layer = f"decoder_l{i + 1}", f"decoder_{i}"
        if c.decoder_mixer == "ssru":
            yield from _ssru(f"{theirs}_rnn", layer)
        else:
            yield from _attention(f"{theirs}_self", layer, "self_attention", "self_frame")
        yield from _attention(f"{theirs}_context", layer, "cross_attention", "cross_frame")
        yield from _feed_forward(f"{theirs}_ffn", layer)


def _attention(theirs: str, layer: str, ours: str, frame: str) -> Iterator[Named]:
    for letter, name in _ATTENTION.items():
        inputs = 2 if name == "out" else 1
        yield Named(f"{theirs}_W{letter}", (layer, ours, name), inputs)
        yield Named(f"{theirs}_b{letter}", (layer, ours, f"{name}_bias"), 0)
    yield from _norm(f"{theirs}_Wo", layer, frame)


def _ssru(theirs: str, layer: str) -> Iterator[Named]:
    yield Named(f"{theirs}_W", (layer, "ssru", "candidate", "kernel"), 1)
    yield Named(f"{theirs}_Wf", (layer, "ssru", "forget", "kernel"), 1)
    yield Named(f"{theirs}_bf", (layer, "ssru", "forget", "bias"), 0)
    yield from _norm(f"{theirs}_ffn", layer, "self_frame")


def _feed_forward(theirs: str, layer: str) -> Iterator[Named]:
    for number, name in ("1", "hidden"), ("2", "out"):
        yield Named(f"{theirs}_W{number}", (layer, "feed_forward", name, "kernel"), 1)
        yield Named(f"{theirs}_b{number}", (layer, "feed_forward", name, "bias"), 0)
    yield from _norm(f"{theirs}_ffn", layer, "feed_forward_frame")


def _norm(theirs: str, layer: str, frame: str) -> Iterator[Named]:
    for name in "scale", "bias":
        yield Named(f"{theirs}_ln_{name}", (layer, frame, "norm", name), 0)
