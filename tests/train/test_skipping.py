"""Updates without a finite gradient are skipped; float16 trains with a scaled loss."""

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
from train.loss_scale import PATIENCE, START, LossScale, init_loss_scale, update_loss_scale
from train.optimizer import make_optimizer
from train.state import TrainState, abstract_state, create_state
from train.step import train_step


def spoiled(state, value):
    table = state.params["embedding"]["table"]
    params = state.params | {"embedding": {"table": table.at[5, 3].set(value)}}
    return state._replace(params=params)


@pytest.mark.parametrize("grad_accum_steps", [1, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_from_a_loss_that_is_no_number_changes_nothing(
    tiny, batch_of, bits, value, grad_accum_steps
):
    task = tiny(grad_accum_steps=grad_accum_steps)
    state, _ = task.step(task.fresh(), batch_of(0))
    state = spoiled(state, value)
    before = bits(state)
    after, told = task.step(state, batch_of(1))
    jax.tree.map(np.testing.assert_array_equal, bits(after)._replace(step=1), before)
    assert after.step == 2  # the next batch is another one
    assert told.skipped == 1 and told.source_tokens > 0 and told.num_positions > 0
    assert told.updates == told.loss_sum == told.tokens == told.grad_norm_sum == 0
    good, told = task.step(task.fresh(), batch_of(1))
    assert told.skipped == 0 and told.updates == 1 and told.loss_sum > 0


class Kink:
    """A model whose loss is finite where its gradient is not."""

    def apply(self, variables, batch, method, train, rngs):
        params = variables["params"]
        logits = jnp.zeros((*batch.tgt.shape, 8)) + params["bias"] + jnp.sqrt(params["zero"])
        return features_of(logits, batch)


def test_an_update_from_a_gradient_that_is_no_number_changes_nothing():
    params = {"bias": jnp.arange(8.0)[None, None], "zero": jnp.zeros((1, 1, 8))}
    tx = make_optimizer("adam", 0.1)
    state = TrainState(jnp.int32(3), params, tx.init(params), jax.random.key(0))
    batch = Batch(*np.ones((2, 4, 3), np.int32))
    after, told = train_step(state, batch, model=Kink(), tx=tx, label_smoothing=0.1)
    assert told.skipped == 1 and after.step == 4
    for old, new in zip(jax.tree.leaves(state[1:3]), jax.tree.leaves(after[1:3]), strict=True):
        np.testing.assert_array_equal(old, new)


def half(dtype="float16"):
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


def test_only_float16_has_a_scale_and_it_is_part_of_the_state():
    state, _, model, tx, mesh = half()
    assert state.loss_scale.scale == START and state.loss_scale.good == 0
    shapes = jax.tree.map(jnp.shape, (state, abstract_state(model, tx, mesh)))
    assert shapes[0] == shapes[1]
    assert half("bfloat16")[0].loss_scale is None


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_takes_the_step_that_float32_takes(batch_of, dtype):
    moved = {}
    for kind in dtype, "float32":
        state, step, *_ = half(kind)
        after, told = step(state, batch_of(0))
        assert told.skipped == 0
        leaves = jax.tree.map(jnp.subtract, after.params, state.params)
        moved[kind] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(leaves)])
    error = np.linalg.norm(moved[dtype] - moved["float32"]) / np.linalg.norm(moved["float32"])
    assert error < {"float16": 0.02, "bfloat16": 0.1}[dtype]


@pytest.mark.slow
def test_without_a_scale_float16_gradients_vanish_and_with_too_much_they_overflow(batch_of):
    state, step, *_ = half()
    right, told = step(state, batch_of(0))
    tiny = state._replace(loss_scale=LossScale(jnp.float32(2.0**-30), jnp.int32(0)))
    small, of_small = step(tiny, batch_of(0))
    lost = lambda after: sum(  # noqa: E731
        int((a == b).sum())
        for a, b in zip(*map(jax.tree.leaves, (after.params, state.params)), strict=True)
    )
    assert lost(small) > 2 * lost(right) and of_small.loss_sum == told.loss_sum
    huge = state._replace(loss_scale=LossScale(jnp.float32(2.0**24), jnp.int32(7)))
    same, of_huge = step(huge, batch_of(0))
    assert of_huge.skipped == 1 and lost(same) == sum(x.size for x in jax.tree.leaves(state.params))
    assert same.loss_scale.scale == 2.0**23 and same.loss_scale.good == 0
    assert right.loss_scale.scale == START and right.loss_scale.good == 1


def test_the_scale_doubles_after_many_good_updates_and_stays_within_bounds():
    scale = init_loss_scale()._replace(good=jnp.int32(PATIENCE - 2))
    scale = update_loss_scale(scale, jnp.bool_(True))
    assert scale == (START, PATIENCE - 1)
    assert update_loss_scale(scale, jnp.bool_(True)) == (2 * START, 0)
    assert update_loss_scale(scale, jnp.bool_(False)) == (START / 2, 0)
    lowest = LossScale(jnp.float32(1), jnp.int32(0))
    assert update_loss_scale(lowest, jnp.bool_(False)).scale == 1
