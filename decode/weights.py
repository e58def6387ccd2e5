"""Weights for decoding: parameters fused and cast once, in the same tree.

Weights that are read together are fused: one matrix projects to queries, keys and values, one to
the keys and values of the encoder's output, one to all inputs of a recurrence, and the output
projection is a separate matrix [D,V] where training ties it to a table [V,D]. Axes as in
model/attention.py; I and O are any two widths.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from data.batch import UNK
from model import TransformerConfig
from model.mixers import MIXERS
from model.transformer import unstack_layers

PRECISIONS = ("float32", "bfloat16", "int8")
BLOCK = 128  # output columns are padded to a multiple: see decode/topk.py


class Int8(NamedTuple):
    """An int8 matrix: values [I,O] int8, each column times its scale [O] float32."""

    values: Array
    scales: Array


class Linear(NamedTuple):
    """x W + b, or x W without a bias: weight [I,O], bias [O] float32."""

    weight: Array | Int8
    bias: Array | None = None

    def __call__(self, x: Array) -> Array:
        """x [...,I] -> float32 [...,O]; the product takes its operands in the weight's type."""
        rows = x.reshape(-1, x.shape[-1])
        weight = self.weight
        y = _int8_product(rows, weight) if isinstance(weight, Int8) else _product(rows, weight)
        if self.bias is not None:
            y += self.bias[None]
        return y.reshape(*x.shape[:-1], y.shape[-1])


def _product(x: Array, weight: Array) -> Array:
    # Results of type bfloat16 would be several times slower than float32 ones on CPUs.
    return jnp.dot(x.astype(weight.dtype), weight, preferred_element_type=jnp.float32)


def _int8_product(x: Array, weight: Int8) -> Array:
    """Quantize each row of x with its own scale, so that rows are independent, and multiply."""
    scales = jnp.maximum(jnp.abs(x).max(-1, keepdims=True), 1e-30) / 127
    rounded = jnp.round(x / scales).astype(jnp.int8)
    y = jnp.dot(rounded, weight.values, preferred_element_type=jnp.int32)
    return y.astype(jnp.float32) * scales * weight.scales[None]


class Norm(NamedTuple):
    """Scale and bias [D] float32 of a norm."""

    scale: Array
    bias: Array | None  # None: RMSNorm


class Weights(NamedTuple):
    """A model's weights: a tree like the parameters, and the output projection.

    In `tree`, modules have the parameters' names; fused matrices have new names: "qkv"
    [D, H K + Hkv K + Hkv V] of self-attention, "kv" of cross-attention, "projections" [D, n D] of a
    recurrence. Matrices are `Linear`, norms `Norm`, tables arrays; embedding tables are scaled.
    """

    tree: dict[str, Any]
    logits: Linear  # [D, V padded with zeros to full blocks]
    special_logits: Linear  # its columns of the special ids, 0 to UNK

    @property
    def product_dtype(self) -> Any:
        """The dtype of attention's products."""
        weight = self.logits.weight
        return jnp.bfloat16 if isinstance(weight, Int8) else weight.dtype

    def stack(self, side: str) -> list[dict[str, Any]]:
        """The layers of the "encoder" or the "decoder", in order."""
        count = sum(name.startswith(f"{side}_") and name[8:].isdecimal() for name in self.tree)
        return [self.tree[f"{side}_{i}"] for i in range(count)]

    def embedding(self, side: str) -> Array:
        """The table of the "source" or the "target", scaled: [V,D]."""
        name = "embedding" if "embedding" in self.tree else f"{side}_embedding"
        return self.tree[name]["table"]


def pack(config: TransformerConfig, params, precision: str = "float32") -> Weights:
    """Pack the parameters of `Transformer(config)` as `Weights` of a precision; pure.

    "bfloat16" has all matrices in bfloat16; "int8" has the decoder's in int8 by column, the
    encoder's, whose products are large, in bfloat16. Vectors and embeddings are float32: reading
    them row by row costs little.
    """
    config, params = unstack_layers(config, params)
    modules = {name: p for name, p in params.items() if name not in ("output", "output_bias")}
    tree = {name: _pack(name, p, precision) for name, p in modules.items()}
    output = params.get("output")
    for name in [name for name in modules if name.endswith("embedding")]:
        if output is None and name != "source_embedding":
            output = params[name]["table"].T
        tree[name] = {"table": params[name]["table"] * config.embedding_scale}
    padding = (0, -output.shape[1] % BLOCK)
    output, bias = jnp.pad(output, ((0, 0), padding)), params.get("output_bias")
    bias = None if bias is None else jnp.pad(bias, padding)
    logits, special = (
        Linear(_cast(output[:, :count], precision), None if bias is None else bias[:count])
        for count in (None, UNK + 1)
    )
    return Weights(tree, logits, special)


def _pack(name: str, p, precision: str) -> Any:
    """Pack the parameters of the module `name`."""
    if name.startswith("encoder"):
        precision = _large_product_precision(precision)
    if "scale" in p:
        return Norm(p["scale"], p.get("bias"))
    if "kernel" in p:
        return _linear(precision, (p["kernel"], p.get("bias")))
    if "query" in p:
        return _attention(p, precision, cross=name.startswith("cross"))
    if MIXERS.get(name):
        return {"projections": _linear(precision, *_recurrence(name, p))}
    return {key: _pack(key, child, precision) if isinstance(child, dict) else child
            for key, child in p.items()}  # fmt: skip


def _large_product_precision(precision: str) -> str:
    """Precision of products with many rows, where int8 gains nothing."""
    return "float32" if precision == "float32" else "bfloat16"


def _attention(p, precision: str, cross: bool) -> dict[str, Linear]:
    query, *kv = (_projection(p, name) for name in ("query", "key", "value"))
    out = p["out"].reshape(-1, p["out"].shape[-1]), p.get("out_bias")
    packed = {"out": _linear(precision, out)}
    if not cross:
        return packed | {"qkv": _linear(precision, query, *kv)}
    # Keys and values of a source are computed once, in a large product.
    return packed | {
        "query": _linear(precision, query),
        "kv": _linear(_large_product_precision(precision), *kv),
    }


def _projection(attention, name: str):
    kernel, bias = attention[name], attention.get(f"{name}_bias")
    return kernel.reshape(kernel.shape[0], -1), None if bias is None else bias.reshape(-1)


def _recurrence(name: str, p):
    kind = MIXERS[name]
    assert kind is not None
    for projection, biased in kind.projections:
        kernel = p[projection]["kernel"]
        yield kernel, p[projection]["bias"] if biased else jnp.zeros(kernel.shape[1])


def _linear(precision: str, *parts: tuple[Array, Array | None]) -> Linear:
    """Fuse kernels [I,O1], [I,O2] .. and their biases along the output axis."""
    kernel = jnp.concatenate([kernel for kernel, _ in parts], axis=1)
    biases = [bias for _, bias in parts if bias is not None]
    fused = jnp.concatenate(biases) if len(biases) == len(parts) else None
    return Linear(_cast(kernel, precision), fused)


def _cast(kernel: Array, precision: str) -> Array | Int8:
    if precision != "int8":
        return kernel.astype(precision)
    scales = jnp.maximum(jnp.abs(kernel).max(0), 1e-30) / 127
    return Int8(jnp.round(kernel / scales[None]).astype(jnp.int8), scales)
