"""The trained parameters laid out for decoding: transposed, fused and cast once, by one function.

What is read together lies together: one matrix makes queries, keys and values, one makes the keys
and values of the encoder's output, and the output projection is a matrix [D, V] of its own where
training ties it to a table [V, D]. Axes as in model/attention.py; I and O are any two widths.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from data.batch import UNK
from model import TransformerConfig
from model.transformer import unroll_layers

PRECISIONS = ("float32", "bfloat16", "int8")
BLOCK = 128  # the output projection has a multiple of so many columns: see decode/choose.py


class Int8(NamedTuple):
    """A matrix in 8 bits: values [I,O] int8, each column times its own scale [O] float32."""

    values: Array
    scales: Array


class Linear(NamedTuple):
    """x W + b, or x W where there is no b: weight [I,O], bias [O] float32."""

    weight: Array | Int8
    bias: Array | None = None

    def __call__(self, x: Array) -> Array:
        """x [...,I] -> float32 [...,O]; the product takes its operands in the weight's type."""
        rows = x.reshape(-1, x.shape[-1])
        product = _int8_product if isinstance(self.weight, Int8) else _product
        y = product(rows, self.weight)
        if self.bias is not None:
            y += self.bias[None]
        return y.reshape(*x.shape[:-1], y.shape[-1])


def _product(x: Array, weight: Array) -> Array:
    # Results of type bfloat16 would be several times slower than float32 ones on CPUs.
    return jnp.dot(x.astype(weight.dtype), weight, preferred_element_type=jnp.float32)


def _int8_product(x: Array, weight: Int8) -> Array:
    """Each row of x in 8 bits by its own scale, so that no row depends on another."""
    scales = jnp.maximum(jnp.abs(x).max(-1, keepdims=True), 1e-30) / 127
    rounded = jnp.round(x / scales).astype(jnp.int8)
    y = jnp.dot(rounded, weight.values, preferred_element_type=jnp.int32)
    return y.astype(jnp.float32) * scales * weight.scales[None]


class Norm(NamedTuple):
    """Vectors [D] float32."""

    scale: Array
    bias: Array | None  # none: RMSNorm


class Layer(NamedTuple):
    """One layer of encoder or decoder; an encoder's has no cross-attention."""

    qkv: Linear | None  # [D, H K + Hkv K + Hkv V], for self-attention
    out: Linear | None
    cell: Linear | None  # [D, D + D], a recurrence's candidate and forget gate, in its place
    norm: Norm
    cross_query: Linear | None
    cross_kv: Linear | None  # [D, Hkv K + Hkv V]
    cross_out: Linear | None
    cross_norm: Norm | None
    hidden: Linear
    gate: Linear | None
    feed_forward_out: Linear
    feed_forward_norm: Norm


class Weights(NamedTuple):
    """A whole model."""

    source_table: Array | None  # [V,D], scaled; none where it is the target's
    target_table: Array
    source_positions: Array | None  # the learned ones
    target_positions: Array | None
    source_embedding_norm: Norm | None
    target_embedding_norm: Norm | None
    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    encoder_norm: Norm | None
    decoder_norm: Norm | None
    logits: Linear  # [D, V and zeros that fill the last block]
    first_logits: Linear  # its columns of the ids that stand for no text, and of EOS
    encoder_bias: Array | None  # [R,H], of relative positions
    decoder_bias: Array | None


def pack(config: TransformerConfig, params, precision: str = "float32") -> Weights:
    """The parameters of `Transformer(config)` as `Weights` of that precision; pure.

    "bfloat16" has all matrices in bfloat16; "int8" has the decoder's in 8 bits by column, the
    encoder's, whose products are large, in bfloat16. Vectors and embeddings stay float32: a row at
    a time they cost nothing.
    """
    config, params = unroll_layers(config, params)
    tied = config.tying
    target = params["embedding" if tied == "all" else "target_embedding"]["table"]
    output = params["output"] if tied == "none" else target.T
    places = [params.get(f"{side}_positions", {}).get("table") for side in ("source", "target")]
    fill = (0, -output.shape[1] % BLOCK)
    output, bias = jnp.pad(output, ((0, 0), fill)), params.get("output_bias")
    bias = None if bias is None else jnp.pad(bias, fill)
    return Weights(
        None if tied == "all" else params["source_embedding"]["table"] * config.embedding_scale,
        target * config.embedding_scale,
        *places,
        *(_norm(params.get(f"{side}_embedding_norm")) for side in ("source", "target")),
        tuple(
            _layer(params[f"encoder_{i}"], _large(precision)) for i in range(config.encoder_layers)
        ),
        tuple(_layer(params[f"decoder_{i}"], precision) for i in range(config.decoder_layers)),
        *(_norm(params.get(f"{side}_norm")) for side in ("encoder", "decoder")),
        *(
            Linear(_cast(output[:, :most], precision), None if bias is None else bias[:most])
            for most in (None, UNK + 1)
        ),
        *(params.get(f"{side}_bias", {}).get("table") for side in ("encoder", "decoder")),
    )


def _large(precision: str) -> str:
    """The precision of products with many rows, where 8 bits gain nothing."""
    return "float32" if precision == "float32" else "bfloat16"


def _layer(p, precision: str) -> Layer:
    linear = partial(_linear, precision)
    own, cross, frame = p.get("self_attention", p.get("attention")), p.get("cross_attention"), None
    if cross is not None:
        query, kv = (
            linear(_projection(cross, "query")),
            _linear(_large(precision), *_keys_and_values(cross)),
        )
        frame, cross = p["cross_frame"]["norm"], (query, kv, linear(_out(cross)))
    forward = {
        name: linear((part["kernel"], part.get("bias"))) for name, part in p["feed_forward"].items()
    }
    if own is None:
        mixer = None, None, linear(*_cell(p["ssru"]))
    else:
        mixer = linear(_projection(own, "query"), *_keys_and_values(own)), linear(_out(own)), None
    return Layer(
        *mixer,
        _norm(p.get("self_frame", p.get("attention_frame"))["norm"]),
        *(cross or (None,) * 3),
        _norm(frame),
        forward["hidden"],
        forward.get("gate"),
        forward["out"],
        _norm(p["feed_forward_frame"]["norm"]),
    )


def _cell(p):
    kernel = p["candidate"]["kernel"]
    return (kernel, jnp.zeros(kernel.shape[1])), (p["forget"]["kernel"], p["forget"]["bias"])


def _projection(attention, name: str):
    kernel, bias = attention[name], attention.get(f"{name}_bias")
    return kernel.reshape(kernel.shape[0], -1), None if bias is None else bias.reshape(-1)


def _keys_and_values(attention):
    return _projection(attention, "key"), _projection(attention, "value")


def _out(attention):
    return attention["out"].reshape(-1, attention["out"].shape[-1]), attention.get("out_bias")


def _norm(p) -> Norm | None:
    return None if p is None else Norm(p["scale"], p.get("bias"))


def _linear(precision: str, *parts: tuple[Array, Array | None]) -> Linear:
    """Kernels [I,O1], [I,O2] .. and their biases side by side, as one."""
    kernel = jnp.concatenate([kernel for kernel, _ in parts], axis=1)
    biases = [bias for _, bias in parts]
    return Linear(_cast(kernel, precision), None if None in biases else jnp.concatenate(biases))


def _cast(kernel: Array, precision: str) -> Array | Int8:
    if precision != "int8":
        return kernel.astype(precision)
    scales = jnp.maximum(jnp.abs(kernel).max(0), 1e-30) / 127
    return Int8(jnp.round(kernel / scales[None]).astype(jnp.int8), scales)
