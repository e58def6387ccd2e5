"""Parameter names of Marian's Transformers, without embeddings.

Marian's matrices are [in, out], like Heed's with heads merged into one axis; vectors are [1, out].
"""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from model import TransformerConfig

_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}


class MarianParamName(NamedTuple):
    """An array's name, the path of its Heed parameter, and its number of input axes."""

    their_name: str
    param_path: tuple[str, ...]
    inputs: int  # 0: a vector

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The shape of the array for a Heed parameter of this shape."""
        return prod(shape[: self.inputs]), prod(shape[self.inputs :])

    def load(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Convert an array to a Heed parameter of this shape."""
        return x.reshape(shape)


def names(c: TransformerConfig) -> Iterator[MarianParamName]:
    """Parameters of encoder and decoder layers."""
    for i in range(c.encoder_layers):
        their_name, layer = f"encoder_l{i + 1}", f"encoder_{i}"
        yield from _attention(f"{their_name}_self", layer, "attention", "attention_residual")
        yield from _feed_forward(f"{their_name}_ffn", layer)
    for i in range(c.decoder_layers):
        their_name, layer = f"decoder_l{i + 1}", f"decoder_{i}"
        if c.decoder_mixer == "ssru":
            yield from _ssru(f"{their_name}_rnn", layer)
        else:
            yield from _attention(f"{their_name}_self", layer, "self_attention", "self_residual")
        yield from _attention(f"{their_name}_context", layer, "cross_attention", "cross_residual")
        yield from _feed_forward(f"{their_name}_ffn", layer)


def _attention(
    their_name: str, layer: str, param_path: str, residual: str
) -> Iterator[MarianParamName]:
    for letter, name in _ATTENTION.items():
        inputs = 2 if name == "out" else 1
        yield MarianParamName(f"{their_name}_W{letter}", (layer, param_path, name), inputs)
        yield MarianParamName(f"{their_name}_b{letter}", (layer, param_path, f"{name}_bias"), 0)
    yield from _norm(f"{their_name}_Wo", layer, residual)


def _ssru(their_name: str, layer: str) -> Iterator[MarianParamName]:
    yield MarianParamName(f"{their_name}_W", (layer, "ssru", "candidate", "kernel"), 1)
    yield MarianParamName(f"{their_name}_Wf", (layer, "ssru", "forget", "kernel"), 1)
    yield MarianParamName(f"{their_name}_bf", (layer, "ssru", "forget", "bias"), 0)
    yield from _norm(f"{their_name}_ffn", layer, "self_residual")


def _feed_forward(their_name: str, layer: str) -> Iterator[MarianParamName]:
    for number, name in ("1", "hidden"), ("2", "out"):
        yield MarianParamName(f"{their_name}_W{number}", (layer, "feed_forward", name, "kernel"), 1)
        yield MarianParamName(f"{their_name}_b{number}", (layer, "feed_forward", name, "bias"), 0)
    yield from _norm(f"{their_name}_ffn", layer, "feed_forward_residual")


def _norm(their_name: str, layer: str, residual: str) -> Iterator[MarianParamName]:
    for name in "scale", "bias":
        yield MarianParamName(f"{their_name}_ln_{name}", (layer, residual, "norm", name), 0)
