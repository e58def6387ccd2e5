"""Chunked cross-entropy from hidden states, with logits for a few positions at a time.

Logits [B,T,V] in float32 are the largest array in training, written and read several times. Here
the loss and its gradient are computed from the logits of one chunk at a time, while these are in
cache; only gradients of the size of the hidden states and of the table are stored.
Axes: B batch, T length, D d_model, V vocabulary, N positions of a chunk.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from model.einsum import float32_einsum
from model.family import Features
from model.platform import current_platform
from model.sharding import num_batch_shards
from train.loss import Metrics, logits_gradient, losses_from_log_sum, output_logits

# Positions per chunk, approximately. On a CPU as many as its cache holds; elsewhere more, since
# each chunk also reads and writes the table's gradient (experiments/LOG.md).
_TOKENS = {"cpu": 1024, "tpu": 2048, "gpu": 4096}
_MAX_EXPONENT = 70.0  # exp(70) times a million words is a float32
_MULTIPLE = {"cpu": 1, "tpu": 128, "gpu": 128}  # the size of a chunk is one: whole tiles


def chunked_cross_entropy(features: Features, label_smoothing: float = 0.0) -> Metrics:
    """The sums of `train.loss.features_cross_entropy`; only `loss_sum` has a gradient."""
    hidden, table, bias, targets, weights = features
    loss, nll, correct = _sums(hidden, (table, bias), targets, weights, label_smoothing)
    return Metrics(loss, nll, correct, jnp.sum(weights))


def sharded_chunked_cross_entropy(mesh: Mesh) -> Callable[..., Metrics] | None:
    """`chunked_cross_entropy` for arrays on a mesh; None if the mesh splits the vocabulary.

    Each device loops over the chunks of its own rows, and the table's gradient is summed over
    devices once, at the end; the compiler alone would do so after each chunk.
    """
    if mesh.shape["tensor"] > 1:
        return None
    if mesh.size == 1:
        return chunked_cross_entropy
    axes = "data", "fsdp"
    rows, replicated = PartitionSpec(axes), PartitionSpec()
    specs: Any = Features(*(rows, replicated, replicated, rows, rows))  # type: ignore[arg-type]

    def loss_head(features: Features, label_smoothing: float = 0.0) -> Metrics:
        if len(features.hidden) % num_batch_shards(mesh):  # rows do not split evenly over devices
            return chunked_cross_entropy(features, label_smoothing)

        def local_sums(features: Features) -> Metrics:
            sums = chunked_cross_entropy(features, label_smoothing)
            return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32)[None], sums)

        sums = jax.shard_map(
            local_sums,
            mesh=mesh,
            in_specs=(specs,),
            out_specs=rows,
            axis_names=set(axes),
            check_vma=False,  # it does not support custom derivatives
        )(features)
        return jax.tree.map(jnp.sum, sums)

    return loss_head


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sums(hidden, output, targets, weights, label_smoothing):
    mean_logit = _mean_logit(hidden.dtype, *output)

    def chunk_sums(chunk):
        hidden, targets, weights = chunk
        losses, *_ = _losses(hidden, output, mean_logit, targets, label_smoothing)
        return tuple(jnp.sum(weights * loss) for loss in losses)

    stacked_sums = lax.map(chunk_sums, _chunks(hidden, targets, weights))
    return tuple(jnp.sum(sums) for sums in stacked_sums)


def _with_gradient(hidden, output, targets, weights, label_smoothing):
    table, bias = output
    mean_logit = _mean_logit(hidden.dtype, *output)
    # The loss scale, which keeps gradients in float16's range, is applied later (_gradient).
    dtype = jnp.float32 if hidden.dtype == jnp.float16 else hidden.dtype

    def add_chunk(gradients, chunk):
        table_grad, bias_grad = gradients
        hidden, targets, weights = chunk
        losses, logits, log_sum = _losses(hidden, output, mean_logit, targets, label_smoothing)
        logits_grad = logits_gradient(logits, targets, log_sum, label_smoothing, weights)
        if bias is not None:
            bias_grad += jnp.sum(logits_grad, 0)
        logits_grad, hidden = logits_grad.astype(dtype), hidden.astype(dtype)
        hidden_grad = float32_einsum("nv,vd->nd", logits_grad, table.astype(dtype))
        # As [D,V]: the logits' gradient is then read in its layout, without a transpose. With two
        # contracted axes XLA transposes `hidden` itself, and has a fast bfloat16 product on a CPU.
        table_grad += float32_einsum("bnd,bnv->dv", hidden[None], logits_grad[None])
        sums = tuple(jnp.sum(weights * loss) for loss in losses)
        return (table_grad, bias_grad), (sums, hidden_grad.astype(dtype))

    zeros = jnp.zeros(table.shape[::-1], jnp.float32), None if bias is None else bias * 0.0
    chunks = _chunks(hidden, targets, weights)
    (table_grad, bias_grad), (sums, hidden_grad) = lax.scan(add_chunk, zeros, chunks)
    batch, length, width = hidden.shape
    hidden_grad = hidden_grad.reshape(-1, width)[: batch * length].reshape(hidden.shape)
    output_grads = table_grad.T.astype(table.dtype), bias_grad
    residuals = hidden_grad, output_grads, jnp.zeros((), hidden.dtype)
    return tuple(jnp.sum(chunk_sums) for chunk_sums in sums), residuals


def _gradient(_smoothing, residuals, gradients):
    hidden_grad, output_grads, dtype_example = residuals
    scale = gradients[0]
    output_grads = jax.tree.map(lambda gradient: gradient * scale, output_grads)
    hidden_grad *= scale.astype(hidden_grad.dtype)
    return hidden_grad.astype(dtype_example.dtype), output_grads, None, None


_sums.defvjp(_with_gradient, _gradient)


def _mean_logit(dtype, table: Array, bias: Array | None) -> tuple[Array, Array]:
    """Coefficients [D] and a constant [] that give the mean logit of a hidden state."""
    mean = jnp.mean(table.astype(dtype).astype(jnp.float32), axis=0)
    return mean, jnp.zeros(()) if bias is None else jnp.mean(bias)


def _losses(hidden, output, mean_logit, targets, label_smoothing):
    """Losses of `token_losses` for hidden states [N,D], with logits [N,V] and their logsumexp [N].

    Exponentials are taken relative to the mean logit, which a small product has computed before the
    logits. A TPU then sums them while it computes the logits; relative to the maximum, they would
    need another pass over all logits, of a third of the loss's cycles (experiments/LOG.md). The sum
    is at least V, and overflows only if a logit is far above the mean: then the maximum is used.
    """
    logits = output_logits(hidden, *output)
    max_logits = jnp.max(logits, axis=-1)
    coefficients, constant = mean_logit
    mean = jnp.sum(hidden.astype(jnp.float32) * coefficients[None], axis=-1) + constant
    sums = jnp.sum(jnp.exp(logits - mean[:, None]), axis=-1)

    log_sum = lax.cond(
        jnp.all(max_logits - mean < _MAX_EXPONENT),
        lambda: mean + jnp.log(sums),
        # Computed anew: as operands of a branch, the logits would be copied.
        lambda: jax.nn.logsumexp(output_logits(hidden, *output), axis=-1),
    )
    losses = losses_from_log_sum(logits, targets, log_sum, max_logits, label_smoothing)
    return losses, logits, log_sum


def _chunks(hidden: Array, targets: Array, weights: Array) -> tuple[Array, ...]:
    """Split each [B,T,...] -> [chunks,N,...], padded with positions of weight 0."""
    batch, length, _ = hidden.shape
    positions = batch * length
    platform = current_platform()
    count = -(-positions // _TOKENS[platform])
    # Chunks of the same size, with as little padding as possible.
    size = -(-positions // count)
    size += -size % _MULTIPLE[platform]

    def split(x):
        x = x.reshape(positions, *x.shape[2:])
        x = jnp.pad(x, ((0, count * size - positions), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(count, size, *x.shape[1:])

    return tuple(map(split, (hidden, targets, weights)))
