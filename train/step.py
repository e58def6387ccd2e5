"""The train step and the eval step as pure functions (paper 5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh

from model.family import Trainable
from model.sharding import batch_sharding, replicated, use_mesh
from train.chunked_cross_entropy import sharded_chunked_cross_entropy
from train.loss import Metrics, features_cross_entropy
from train.loss_scale import update_loss_scale
from train.state import TrainState, state_shardings


def train_step(
    state: TrainState,
    batch: Any,
    *,
    model: Trainable,
    tx: optax.GradientTransformation,
    label_smoothing: float,
    grad_accum_steps: int = 1,
    ema_decay: float = 0.0,
    loss_head: Callable[..., Metrics] | None = None,
) -> tuple[TrainState, Metrics]:
    """One update with the gradient of the mean loss over the batch's real target tokens.

    If loss or gradient is not finite, the update is skipped and counted: parameters, optimizer
    state and moving average stay unchanged. Training in float16 scales the loss
    (train/loss_scale.py). For an adapted model (model/lora.py) only the adapters are updated, and
    `state.base` is unchanged.

    Gradients are accumulated over `grad_accum_steps` micro-batches, parts of the batch's rows that
    are processed in turn. This needs less memory, and gives the same gradient except for dropout's
    random bits. Raises ValueError if the rows do not divide evenly. `loss_head` computes the losses
    from features (train/chunked_cross_entropy.py); None computes them from all logits.
    """
    rng = jax.random.fold_in(state.rng, state.step)
    # Scale the mean over a micro-batch's targets: a sum would leave less of float16's range.
    num_targets = batch.num_targets // grad_accum_steps
    scale = None if state.loss_scale is None else state.loss_scale.scale / num_targets
    loss = partial(_summed_loss, loss_head=loss_head, base=state.base)
    gradient = jax.grad(loss, has_aux=True)
    if grad_accum_steps == 1:
        grads, metrics = gradient(state.params, batch, rng, model, label_smoothing, scale)
    else:

        def add(sums, microbatch):
            batch, index = microbatch
            key = jax.random.fold_in(rng, index)
            result = gradient(state.params, batch, key, model, label_smoothing, scale)
            return jax.tree.map(jnp.add, sums, result), None

        microbatches = (
            _microbatches(batch, grad_accum_steps),
            jnp.arange(grad_accum_steps, dtype=jnp.int32),
        )
        zeros = (
            jax.tree.map(jnp.zeros_like, state.params),
            Metrics(*jnp.zeros(len(Metrics._fields))),
        )
        # Micro-batches are weighted by their tokens: sums are added here and divided once, below.
        (grads, metrics), _ = lax.scan(add, zeros, microbatches)
    divisor = jnp.maximum(metrics.tokens, 1.0) * (1.0 if scale is None else scale)
    grads = jax.tree.map(lambda g: g / divisor.astype(g.dtype), grads)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(metrics.loss_sum) & jnp.isfinite(norm)

    def update(grads):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return params, opt_state, _moving_average(state, params, ema_decay)

    skip = lambda _: (state.params, state.opt_state, state.ema)  # noqa: E731
    params, opt_state, ema = lax.cond(finite, update, skip, grads)
    state = state._replace(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        ema=ema,
        loss_scale=state.loss_scale and update_loss_scale(state.loss_scale, finite),
    )
    return state, _step_metrics(metrics, finite, norm)


def eval_step(
    params,
    batch: Any,
    *,
    model: Trainable,
    label_smoothing: float = 0.0,
    loss_head: Callable[..., Metrics] | None = None,
) -> Metrics:
    """Metrics of a batch, without dropout and without an update."""
    apply = partial(model.apply, {"params": params}, train=False)
    return _losses(apply, batch, label_smoothing, loss_head)


def make_train_step(
    model: Trainable,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    label_smoothing: float,
    grad_accum_steps: int = 1,
    ema_decay: float = 0.0,
    chunked: bool = True,
) -> "OnMesh":
    """`train_step` as one jitted function for all batch shapes, sharded; the state is donated.

    A batch may consist of NumPy arrays; its rows are split over the mesh's data and fsdp axes, so
    their number must be a multiple of the product of these axes. The state is that of
    `create_state(..., ema=ema_decay > 0)`. Logits are `chunked` unless the mesh splits the
    vocabulary. The attribute `traced_shapes` lists the batch shapes that were compiled.
    """
    shardings = state_shardings(model, tx, mesh, ema=ema_decay > 0)
    traced_shapes: list[Any] = []

    def step(state, batch):
        traced_shapes.append(jax.tree.map(jnp.shape, batch))  # runs once per compiled shape
        return train_step(
            state,
            batch,
            model=model,
            tx=tx,
            label_smoothing=label_smoothing,
            grad_accum_steps=grad_accum_steps,
            ema_decay=ema_decay,
            loss_head=sharded_chunked_cross_entropy(mesh) if chunked else None,
        )

    jitted = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )
    return OnMesh(mesh, jitted, traced_shapes)


@lru_cache(maxsize=4)  # validation and test of a run share one, traced once per shape
def make_eval_step(
    model: Trainable, mesh: Mesh, *, label_smoothing: float = 0.0, chunked: bool = True
) -> "OnMesh":
    """`eval_step` as one jitted function: parameters keep their sharding, a batch is split."""
    loss_head = sharded_chunked_cross_entropy(mesh) if chunked else None
    step = jax.jit(
        partial(eval_step, model=model, label_smoothing=label_smoothing, loss_head=loss_head),
        in_shardings=(None, batch_sharding(mesh)),
        out_shardings=replicated(mesh),
    )
    return OnMesh(mesh, step)


def _summed_loss(
    params, batch, rng, model, label_smoothing, scale, loss_head=None, base=None
) -> tuple[Array | float, Metrics]:
    variables = {"params": params} | ({} if base is None else {"base": base})
    apply = partial(model.apply, variables, train=True, rngs={"dropout": rng})
    metrics = _losses(apply, batch, label_smoothing, loss_head)
    return metrics.loss_sum if scale is None else metrics.loss_sum * scale, metrics


def _losses(apply: Callable, batch: Any, label_smoothing: float, loss_head) -> Metrics:
    features = apply(batch, method="features")
    with jax.named_scope("loss"):
        metrics = (loss_head or features_cross_entropy)(features, label_smoothing)
    return metrics._replace(
        source_tokens=batch.source_tokens, num_positions=jnp.float32(batch.num_positions)
    )


def _step_metrics(metrics: Metrics, finite: Array, norm: Array) -> Metrics:
    """The metrics of one update; a skipped one adds only the batch's sizes to the sums."""
    result = metrics._replace(updates=jnp.float32(1), grad_norm_sum=norm)
    result = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), result)
    skipped = jnp.where(finite, 0.0, 1.0)
    return result._replace(
        source_tokens=metrics.source_tokens, num_positions=metrics.num_positions, skipped=skipped
    )


def _microbatches(batch: Any, count: int) -> Any:
    """Split rows [R,...] -> [count, R/count, ...]."""

    def split(x):
        rows, *rest = x.shape
        if rows % count:
            raise ValueError(f"a batch of {rows} rows cannot be split into {count} equal parts")
        # Micro-batch i takes rows i, i + count, ...: adjacent rows are on one device, so each
        # device has rows of every micro-batch.
        return jnp.swapaxes(x.reshape(rows // count, count, *rest), 0, 1)

    return jax.tree.map(split, batch)


def _moving_average(state: TrainState, params, decay: float):
    """Moving average: ema + (1 - decay) * (params - ema), with a smaller decay at the start.

    The decay is min(decay, (1 + step) / (10 + step)), as in TensorFlow's ExponentialMovingAverage
    with `num_updates`, which quickly discounts the random initialization.
    """
    if state.ema is None:
        if decay:
            raise ValueError(
                "ema_decay is set, but the state has no moving average: create it with ema"
            )
        return None
    step = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda ema, p: ema + rate * (p - ema), state.ema, params)


@dataclass(frozen=True, eq=False)
class OnMesh:
    """A jitted function that is called, and so compiled, with its mesh in use.

    Without the mesh, sharding constraints would be dropped.
    """

    mesh: Mesh
    jitted: jax.stages.Wrapped
    traced_shapes: Sequence[Any] = ()  # batch shapes, if recorded

    def __call__(self, *args) -> Any:
        with use_mesh(self.mesh):
            return self.jitted(*args)

    def lower_and_compile(self, *args) -> jax.stages.Compiled:
        """Compile the program for these arguments."""
        with use_mesh(self.mesh):
            return self.jitted.lower(*args).compile()
