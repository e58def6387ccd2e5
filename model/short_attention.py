"""Attention of short rows on a TPU: a Pallas kernel for one row with all its heads.

Queries, keys and values [B,T,H*K] stay as their projections compute them, heads side by side. As
[B,H,T,K], which other kernels read, heads of 64 would fill half of each tile, and be transposed
before and after. A head's product takes the 128 places that hold it, with zeros at those of other
heads, at no cost: a narrower product uses the matrix unit no better. The scores of a row fit on the
chip, so the backward pass computes them anew, and nothing is stored for it.
Axes: B rows, T queries, S keys, H heads, K head width.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

_LANES = 128
MAX_LENGTH = 256  # of a row: more would not fit on the chip beside its gradients
_MASKED = -1e30


def supports(width: int, heads: int, length: int) -> bool:
    """Whether there is a kernel for heads of this width in rows of this length."""
    fills_tiles = not (width % _LANES and _LANES % width) and not heads * width % _LANES
    return fills_tiles and length <= MAX_LENGTH


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def short_attention(
    q: Array, k: Array, v: Array, query_ids: Array, key_ids: Array, heads: int, causal: bool
) -> Array:
    """softmax(q k^T / sqrt(K)) v for each head: q [B,T,H*K], k, v [B,S,H*K] -> [B,T,H*K].

    A query attends to the keys that have its id: `query_ids` [B,T], `key_ids` [B,S] int32. T and S
    are multiples of 128. A query without a key has a meaningless, finite output.
    """
    kernel = partial(_forward_kernel, heads=heads, causal=causal)
    return _call(f"short_attention_fwd_{heads}", kernel, (q,), query_ids, key_ids, q, k, v)


def _forward(q, k, v, query_ids, key_ids, heads, causal):
    inputs = q, k, v, query_ids, key_ids
    return short_attention(*inputs, heads, causal), inputs


def _backward(heads, causal, inputs, gradient):
    q, k, v, query_ids, key_ids = inputs
    kernel = partial(_backward_kernel, heads=heads, causal=causal)
    operands = query_ids, key_ids, q, k, v, gradient
    return *_call(f"short_attention_bwd_{heads}", kernel, (q, k, v), *operands), None, None


short_attention.defvjp(_forward, _backward)


def _call(name, kernel, results, query_ids, key_ids, *arrays):
    """Run a kernel once for each row, with blocks [1,T,..] of all operands and results."""
    row = lambda x: pl.BlockSpec((1, *x.shape[1:]), lambda b: (b, 0, 0))  # noqa: E731
    operands = query_ids[:, :, None], key_ids[:, None], *arrays
    outputs = pl.pallas_call(
        kernel,
        grid=(len(query_ids),),
        in_specs=[row(x) for x in operands],
        out_specs=[row(x) for x in results],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        name=name,
    )(*operands)
    return outputs if len(outputs) > 1 else outputs[0]


def _forward_kernel(query_ids, key_ids, q, k, v, out, *, heads, causal):
    allowed = _allowed(query_ids, key_ids, causal)
    for places, owners, scale in _tiles(q.shape[-1], heads):
        queries, keys, values = (x[0, :, places] for x in (q, k, v))
        mixed = jnp.zeros(queries.shape, jnp.float32)
        for own in owners:
            weights = _weights(_only(own, queries), keys, allowed, scale)
            mixed = jnp.where(own, _dot(weights.astype(values.dtype), values, 1, 0), mixed)
        out[0, :, places] = mixed.astype(out.dtype)


def _backward_kernel(
    query_ids, key_ids, q, k, v, gradient, q_grad, k_grad, v_grad, *, heads, causal
):
    allowed = _allowed(query_ids, key_ids, causal)
    for places, owners, scale in _tiles(q.shape[-1], heads):
        queries, keys, values, grads = (x[0, :, places] for x in (q, k, v, gradient))
        dq = jnp.zeros(queries.shape, jnp.float32)
        dk = jnp.zeros(keys.shape, jnp.float32)
        dv = jnp.zeros(keys.shape, jnp.float32)
        for own in owners:
            own_queries, own_grads = _only(own, queries), _only(own, grads)
            weights = _weights(own_queries, keys, allowed, scale)
            dv += _dot(weights.astype(grads.dtype), own_grads, 0, 0)
            products = weights * _dot(own_grads, values, 1, 1)
            scores_grad = products - weights * jnp.sum(products, axis=1, keepdims=True)
            scores_grad = (scores_grad * scale).astype(keys.dtype)
            dq = jnp.where(own, _dot(scores_grad, keys, 1, 0), dq)
            dk += _dot(scores_grad, own_queries, 0, 0)
        for result, value in (q_grad, dq), (k_grad, dk), (v_grad, dv):
            result[0, :, places] = value.astype(result.dtype)


def _tiles(width: int, heads: int) -> Iterator[tuple[slice, list[Array], float]]:
    """The places of each tile of heads, which of them each head owns, and the scores' scale."""
    head_width = width // heads
    tile = max(head_width, _LANES)
    owner = lax.broadcasted_iota(jnp.int32, (1, tile), 1) // head_width
    owners = [owner == head for head in range(tile // head_width)]
    for start in range(0, width, tile):
        yield slice(start, start + tile), owners, head_width**-0.5


def _allowed(query_ids, key_ids, causal: bool) -> Array:
    """[T,S] bool from blocks of ids [1,T,1] and [1,1,S]."""
    allowed = query_ids[0] == key_ids[0]
    if causal:
        place = partial(lax.broadcasted_iota, jnp.int32, allowed.shape)
        allowed &= place(1) <= place(0)
    return allowed


def _weights(q: Array, k: Array, allowed: Array, scale: float) -> Array:
    """Attention weights float32 [T,S]."""
    scores = jnp.where(allowed, _dot(q, k, 1, 1) * scale, _MASKED)
    exps = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return exps / jnp.sum(exps, axis=1, keepdims=True)


def _only(own: Array, x: Array) -> Array:
    return jnp.where(own, x, jnp.zeros_like(x))


def _dot(x: Array, y: Array, x_axis: int, y_axis: int) -> Array:
    """The product of two matrices that contracts these axes, with the result in float32."""
    exact = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return lax.dot_general(
        x,
        y,
        (((x_axis,), (y_axis,)), ((), ())),
        precision=exact,
        preferred_element_type=jnp.float32,
    )
