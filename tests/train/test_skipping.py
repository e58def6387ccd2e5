"""Updates without a finite gradient are skipped; float16 has a loss scale."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data.batch import Batch
from model import Transformer, TransformerConfig
from model.sharding import make_mesh
from tests.train.logits_features import features_of
from train.loss_scale import (
    GROWTH_INTERVAL,
    INITIAL_SCALE,
    LossScale,
    init_loss_scale,
    update_loss_scale,
)
from train.optimizer import make_optimizer
from train.state import TrainState, abstract_state, create_state
from train.step import train_step


def with_bad_param(state, value):
    table = state.params["embedding"]["table"]
    params = state.params | {"embedding": {"table": table.at[5, 3].set(value)}}
    return state._replace(params=params)


@pytest.mark.parametrize("grad_accum_steps", [1, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_with_a_non_finite_loss_changes_nothing(
    tiny, batch_of, bits, value, grad_accum_steps
):
    task = tiny(grad_accum_steps=grad_accum_steps)
    state, _ = task.step(task.fresh(), batch_of(0))
    state = with_bad_param(state, value)
    before = bits(state)
    after, metrics = task.step(state, batch_of(1))
    jax.tree.map(np.testing.assert_array_equal, bits(after)._replace(step=1), before)
    assert after.step == 2  # the step still advances to the next batch
    assert metrics.skipped == 1 and metrics.source_tokens > 0 and metrics.num_positions > 0
    assert metrics.updates == metrics.loss_sum == metrics.tokens == metrics.grad_norm_sum == 0
    good, metrics = task.step(task.fresh(), batch_of(1))
    assert metrics.skipped == 0 and metrics.updates == 1 and metrics.loss_sum > 0


class NonFiniteGradient:
    """A model with a finite loss and a non-finite gradient."""

    def apply(self, variables, batch, method, train, rngs):
        params = variables["params"]
        logits = jnp.zeros((*batch.tgt.shape, 8)) + params["bias"] + jnp.sqrt(params["zero"])
        return features_of(logits, batch)


def test_an_update_with_a_non_finite_gradient_changes_nothing():
    params = {"bias": jnp.arange(8.0)[None, None], "zero": jnp.zeros((1, 1, 8))}
    tx = make_optimizer("adam", 0.1)
    state = TrainState(jnp.int32(3), params, tx.init(params), jax.random.key(0))
    batch = Batch(*np.ones((2, 4, 3), np.int32))
    after, metrics = train_step(state, batch, model=NonFiniteGradient(), tx=tx, label_smoothing=0.1)
    assert metrics.skipped == 1 and after.step == 4
    for old, new in zip(jax.tree.leaves(state[1:3]), jax.tree.leaves(after[1:3]), strict=True):
        np.testing.assert_array_equal(old, new)


def half_precision_setup(dtype="float16"):
    config = TransformerConfig(
        vocab_size=32, encoder_layers=1, decoder_layers=1, d_model=16, d_ff=32, num_heads=2,
        dropout=0.0, dtype=dtype,
    )  # fmt: skip
    model, tx = Transformer(config), optax.sgd(1.0)
    mesh = make_mesh(1, devices=jax.devices()[:1])
    state = create_state(model, tx, jax.random.key(0), mesh)
    return (
        state,
        jax.jit(partial(train_step, model=model, tx=tx, label_smoothing=0.1)),
        model,
        tx,
        mesh,
    )


def test_only_float16_has_a_loss_scale_in_its_state():
    state, _, model, tx, mesh = half_precision_setup()
    assert state.loss_scale.scale == INITIAL_SCALE and state.loss_scale.good == 0
    shapes = jax.tree.map(jnp.shape, (state, abstract_state(model, tx, mesh)))
    assert shapes[0] == shapes[1]
    assert half_precision_setup("bfloat16")[0].loss_scale is None


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_updates_are_close_to_float32(batch_of, dtype):
    updates = {}
    for kind in dtype, "float32":
        state, step, *_ = half_precision_setup(kind)
        after, metrics = step(state, batch_of(0))
        assert metrics.skipped == 0
        leaves = jax.tree.map(jnp.subtract, after.params, state.params)
        updates[kind] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(leaves)])
    error = np.linalg.norm(updates[dtype] - updates["float32"]) / np.linalg.norm(updates["float32"])
    assert error < {"float16": 0.02, "bfloat16": 0.1}[dtype]


@pytest.mark.slow
def test_float16_gradients_underflow_without_a_scale_and_overflow_with_a_large_one(batch_of):
    state, step, *_ = half_precision_setup()
    after_default, metrics = step(state, batch_of(0))
    tiny = state._replace(loss_scale=LossScale(jnp.float32(2.0**-30), jnp.int32(0)))
    after_tiny, tiny_metrics = step(tiny, batch_of(0))
    num_unchanged = lambda after: sum(  # noqa: E731
        int((a == b).sum())
        for a, b in zip(*map(jax.tree.leaves, (after.params, state.params)), strict=True)
    )
    assert (
        num_unchanged(after_tiny) > 2 * num_unchanged(after_default)
        and tiny_metrics.loss_sum == metrics.loss_sum
    )
    huge = state._replace(loss_scale=LossScale(jnp.float32(2.0**24), jnp.int32(7)))
    after_huge, huge_metrics = step(huge, batch_of(0))
    assert huge_metrics.skipped == 1 and num_unchanged(after_huge) == sum(
        x.size for x in jax.tree.leaves(state.params)
    )
    assert after_huge.loss_scale.scale == 2.0**23 and after_huge.loss_scale.good == 0
    assert after_default.loss_scale.scale == INITIAL_SCALE and after_default.loss_scale.good == 1


def test_the_loss_scale_doubles_after_many_finite_updates_and_stays_in_bounds():
    scale = init_loss_scale()._replace(good=jnp.int32(GROWTH_INTERVAL - 2))
    scale = update_loss_scale(scale, jnp.bool_(True))
    assert scale == (INITIAL_SCALE, GROWTH_INTERVAL - 1)
    assert update_loss_scale(scale, jnp.bool_(True)) == (2 * INITIAL_SCALE, 0)
    assert update_loss_scale(scale, jnp.bool_(False)) == (INITIAL_SCALE / 2, 0)
    lowest = LossScale(jnp.float32(1), jnp.int32(0))
    assert update_loss_scale(lowest, jnp.bool_(False)).scale == 1
