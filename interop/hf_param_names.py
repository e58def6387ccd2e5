"""Parameter names of Hugging Face Transformers, without embeddings.

Hugging Face's matrices are [out, in]; Heed's are [in, out], with a separate axis for heads.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from model import TransformerConfig

_ATTENTIONS = {
    "encoder": {"self_attn": "attention"},
    "decoder": {"self_attn": "self_attention", "encoder_attn": "cross_attention"},
}
_NORMS = {
    "encoder": {
        "self_attn_layer_norm": "attention_residual",
        "final_layer_norm": "feed_forward_residual",
    },
    "decoder": {
        "self_attn_layer_norm": "self_residual",
        "encoder_attn_layer_norm": "cross_residual",
        "final_layer_norm": "feed_forward_residual",
    },
}
_PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}


class HFParamName(NamedTuple):
    """A tensor's name, the path of its Heed parameter, and its number of input axes."""

    their_name: str
    param_path: tuple[str, ...]
    inputs: int  # 0: a vector

    def size(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tensor for a Heed parameter of this shape."""
        if not self.inputs:
            return (math.prod(shape),)
        return math.prod(shape[self.inputs :]), math.prod(shape[: self.inputs])

    def store(self, x: np.ndarray) -> np.ndarray:
        """Convert a Heed parameter to a tensor."""
        return np.ascontiguousarray(x.reshape(self.size(x.shape)[::-1]).T)

    def load(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Convert a tensor to a Heed parameter of this shape."""
        return np.ascontiguousarray(x.T).reshape(shape)


class Positions(NamedTuple):
    """A learned position table that starts with unused rows."""

    their_name: str
    param_path: tuple[str, ...]
    unused: int = 2

    def size(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the file's table for a Heed table of this shape."""
        return shape[0] + self.unused, shape[1]

    def load(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Drop the unused rows."""
        return x[self.unused :]


def outer_names(c: TransformerConfig) -> Iterator[HFParamName | Positions]:
    """Parameters before and after the layers of BART models: norms and positions."""
    for side, words in ("encoder", "source"), ("decoder", "target"):
        norms = {"layer_norm": f"{side}_norm"} if c.norm == "pre" else {}
        norms |= {"layernorm_embedding": f"{words}_embedding_norm"} if c.embedding_norm else {}
        for their_name, param_path in norms.items():
            for suffix, name in ("weight", "scale"), ("bias", "bias"):
                yield HFParamName(f"model.{side}.{their_name}.{suffix}", (param_path, name), 0)
        if c.positions == "learned":
            table = f"model.{side}.embed_positions.weight"
            yield Positions(table, (f"{words}_positions", "table"))


def names(c: TransformerConfig) -> Iterator[HFParamName]:
    """Parameters of encoder and decoder layers with attention and feed-forward biases."""
    for side in "encoder", "decoder":
        for i in range(getattr(c, f"{side}_layers")):
            layer, heed_layer = f"model.{side}.layers.{i}", f"{side}_{i}"
            for their_name, param_path in _ATTENTIONS[side].items():
                for projection, name in _PROJECTIONS.items():
                    inputs = 2 if name == "out" else 1
                    tensor = f"{layer}.{their_name}.{projection}"
                    yield HFParamName(f"{tensor}.weight", (heed_layer, param_path, name), inputs)
                    yield HFParamName(f"{tensor}.bias", (heed_layer, param_path, f"{name}_bias"), 0)
            for their_name, param_path in _NORMS[side].items():
                for suffix, name in ("weight", "scale"), ("bias", "bias"):
                    yield HFParamName(
                        f"{layer}.{their_name}.{suffix}", (heed_layer, param_path, "norm", name), 0
                    )
            for their_name, name in ("fc1", "hidden"), ("fc2", "out"):
                path = heed_layer, "feed_forward", name
                yield HFParamName(f"{layer}.{their_name}.weight", (*path, "kernel"), 1)
                yield HFParamName(f"{layer}.{their_name}.bias", (*path, "bias"), 0)
