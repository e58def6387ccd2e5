"""The train step: same update with micro-batches, meshes, padding and donation."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from data.batch import PAD, Batch
from model.sharding import use_mesh
from tests.train.logits_features import features_of
from train.state import TrainState, abstract_params, abstract_state
from train.step import eval_step, make_eval_step, train_step

ONE_DEVICE = None  # the mesh of `tiny`


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def run(task, batch_of, bits, steps=3):
    """Some updates -> the last state, without optimizer state, and the metrics of each."""
    state, all_metrics = task.fresh(), []
    for i in range(steps):
        state, metrics = task.step(state, batch_of(i))
        all_metrics.append(bits(metrics))
    return bits(state._replace(opt_state=None)), all_metrics


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_sharded_updates_equal_one_device(tiny, batch_of, bits, mesh):
    # Three updates: Adam's first depends only on the gradient's sign.
    single, expected_metrics = run(tiny(ONE_DEVICE), batch_of, bits)
    sharded, sharded_metrics = run(tiny(mesh), batch_of, bits)
    close(sharded_metrics, expected_metrics, rtol=1e-4)
    close(sharded.params, single.params, atol=2e-4)
    close(sharded.ema, single.ema, atol=2e-4)
    assert sharded.step == 3


@pytest.mark.slow
def test_params_moments_and_ema_are_sharded_alike(tiny, batch_of):
    task = tiny((2, 2, 2))
    state = task.fresh()
    moments = next(s for s in state.opt_state if hasattr(s, "mu"))
    for tree in (state.params, moments.mu, moments.nu, state.ema):
        table = tree["embedding"]["table"]
        assert table.sharding.spec == P("tensor", "fsdp")
        assert {s.data.shape for s in table.addressable_shards} == {(16, 8)}
    assert state.step.sharding.spec == P()
    after, _ = task.step(state, batch_of(0))
    abstract = abstract_state(task.model, task.tx, task.mesh, ema=True)
    layout = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)  # noqa: E731
    assert layout(after) == layout(abstract)
    assert layout(abstract_params(task.model, task.mesh)) == layout(abstract.params)


def test_the_models_constraints_reach_the_compiler(tiny, batch_of):
    task = tiny((2, 2, 2))
    with use_mesh(task.mesh):
        text = task.step.jitted.lower(task.fresh(), batch_of(0)).as_text()
    assert text.count("sharding_constraint") > 5


def test_init_depends_on_the_seed_but_not_on_the_mesh(tiny, bits):
    single, sharded = bits(tiny(ONE_DEVICE).fresh(1).params), bits(tiny((2, 2, 2)).fresh(1).params)
    close(single, sharded, rtol=0, atol=0)
    other = bits(tiny(ONE_DEVICE).fresh(2).params)
    assert (single["embedding"]["table"] != other["embedding"]["table"]).all()


def test_micro_batches_equal_the_full_batch(tiny, batch_of, bits):
    full, full_metrics = run(tiny(ONE_DEVICE, dropout=0.0), batch_of, bits, steps=2)
    accumulated, accumulated_metrics = run(
        tiny((2, 2, 2), dropout=0.0, grad_accum_steps=4), batch_of, bits, steps=2
    )
    # Loss and gradient norm, before and after an update.
    close(accumulated_metrics, full_metrics, rtol=1e-4)
    close(accumulated.params, full.params, atol=1e-4)


class NoiseModel:
    """A model whose logits are its bias plus noise from the dropout key."""

    def __init__(self, scale):
        self.scale = scale

    def apply(self, variables, batch, method, train, rngs):
        noise = jax.random.normal(rngs["dropout"], (*batch.tgt.shape, 8))
        return features_of(variables["params"]["bias"] + self.scale * noise, batch)


@pytest.fixture(scope="module")
def noisy_update():
    """A function that updates the noise model at a step, on rows of ones."""
    tx = optax.sgd(1.0)

    @cache
    def jitted(scale, grad_accum_steps):
        options = dict(label_smoothing=0.1, grad_accum_steps=grad_accum_steps)
        return jax.jit(partial(train_step, model=NoiseModel(scale), tx=tx, **options))

    def update(step, rows=4, grad_accum_steps=1, scale=1.0):
        params = {"bias": jnp.zeros((1, 1, 8))}
        state = TrainState(jnp.int32(step), params, tx.init(params), jax.random.key(0))
        batch = Batch(*np.ones((2, rows, 3), np.int32))
        return jitted(scale, grad_accum_steps)(state, batch)

    return update


def test_dropout_depends_on_the_step_and_repeats_with_the_state(noisy_update):
    first, repeated, second = (noisy_update(step)[1].loss for step in (0, 0, 1))
    assert first == repeated != second


@pytest.mark.slow
def test_micro_batches_have_different_dropout(noisy_update):
    one, two, four = (noisy_update(0, rows=2 * n, grad_accum_steps=n)[1] for n in (1, 2, 4))
    assert two.tokens == 2 * one.tokens
    assert len({float(metrics.loss) for metrics in (one, two, four)}) == 3


def test_rows_that_do_not_divide_are_rejected(noisy_update):
    with pytest.raises(ValueError, match="4 rows cannot be split into 3"):
        noisy_update(0, grad_accum_steps=3)


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_the_gradient_is_the_mean_over_tokens(noisy_update, grad_accum_steps):
    state, metrics = noisy_update(0, grad_accum_steps=grad_accum_steps, scale=0.0)
    smoothed = 0.9 * np.eye(8)[1] + 0.1 / 8
    gradient = np.full(8, 1 / 8) - smoothed  # softmax of equal logits minus the smoothed target
    np.testing.assert_allclose(-state.params["bias"][0, 0], gradient, atol=1e-6)
    assert metrics.grad_norm_sum == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


@pytest.mark.slow
def test_padding_preserves_loss_and_update(tiny, batch_of, bits):
    task, batch = tiny(ONE_DEVICE, dropout=0.0), batch_of(0)
    padded = Batch(*(np.pad(x, ((0, 4), (0, 5)), constant_values=PAD) for x in batch[:2]))
    (a, metrics_a), (b, metrics_b) = (bits(task.step(task.fresh(), x)) for x in (batch, padded))
    close(a.params, b.params, atol=1e-4)
    close(metrics_a._replace(num_positions=0), metrics_b._replace(num_positions=0), rtol=1e-4)
    assert metrics_a.tokens == np.count_nonzero(batch.tgt)
    assert metrics_a.source_tokens == np.count_nonzero(batch.src)
    assert (
        metrics_a.num_positions == batch.src.size + batch.tgt.size
        and metrics_b.num_positions > metrics_a.num_positions
    )
    assert metrics_a.updates == 1


@pytest.mark.slow
def test_empty_rows_preserve_the_update_and_its_dropout(tiny, batch_of, bits):
    task, batch = tiny(ONE_DEVICE), batch_of(0)
    padded = Batch(*(np.pad(x, ((0, 16), (0, 0)), constant_values=PAD) for x in batch[:2]))
    (a, metrics_a), (b, metrics_b) = (bits(task.step(task.fresh(), x)) for x in (batch, padded))
    close(metrics_a._replace(num_positions=0), metrics_b._replace(num_positions=0), rtol=1e-5)
    close(a.ema, b.ema, atol=1e-4)


def test_an_empty_batch_gives_a_finite_update(tiny, batch_of):
    task = tiny(ONE_DEVICE)
    state, metrics = task.step(task.fresh(), jax.tree.map(np.zeros_like, batch_of(0)))
    assert metrics.tokens == 0 and metrics.loss_sum == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_the_state_is_donated(tiny, batch_of):
    task = tiny((8, 1, 1))
    state = task.fresh()
    task.step(state, batch_of(0))
    arrays = [x for x in jax.tree.leaves((state.params, state.opt_state, state.ema)) if x.ndim]
    assert arrays and all(x.is_deleted() for x in arrays)


def test_ema_follows_its_formula(tiny, batch_of, bits):
    task = tiny(ONE_DEVICE)
    state = task.fresh()
    expected = bits(state.params)
    close(bits(state.ema), expected, rtol=0)
    for step in range(12):
        state, _ = task.step(state, batch_of(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = jax.tree.map(
            lambda e, p, decay=decay: decay * e + (1 - decay) * p, expected, bits(state.params)
        )
    close(bits(state.ema), expected, atol=1e-6)
    assert state.eval_params is state.ema and state._replace(ema=None).eval_params is state.params


def test_ema_decay_without_ema_in_the_state_is_rejected(tiny, batch_of):
    task = tiny(ONE_DEVICE)
    step = partial(train_step, model=task.model, tx=task.tx, label_smoothing=0.0, ema_decay=0.9)
    state = abstract_state(task.model, task.tx, task.mesh, ema=False)
    with pytest.raises(ValueError, match="has no moving average"):
        jax.eval_shape(step, state, batch_of(0))


@pytest.mark.slow
def test_evaluation_is_the_same_on_every_mesh(tiny, batch_of, bits):
    batch = batch_of(0)
    single, sharded = (
        bits(
            make_eval_step(task.model, task.mesh, label_smoothing=0.1)(
                task.fresh().eval_params, batch
            )
        )
        for task in (tiny(ONE_DEVICE), tiny((2, 2, 2)))
    )
    close(single, sharded, rtol=1e-5)
    assert single.source_tokens == np.count_nonzero(batch.src)
    assert single.loss_sum > 0 and single.loss_sum != single.nll_sum


def test_evaluation_has_no_dropout():
    class WithoutDropout:
        def apply(self, variables, batch, method, train):  # takes no PRNG keys
            assert train is False
            return features_of(jnp.zeros((*batch.tgt.shape, 8)) + variables["params"], batch)

    batch = Batch(*np.ones((2, 4, 3), np.int32))
    metrics = eval_step(jnp.zeros((1, 1, 8)), batch, model=WithoutDropout())
    assert float(metrics.loss) == pytest.approx(np.log(8))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [ONE_DEVICE, (2, 2, 2)], ids=str)
def test_one_jit_serves_all_shapes(tiny, batch_of, mesh):
    task = tiny(mesh)
    state = task.fresh()
    for length in (6, 9, 6, 9):
        state, _ = task.step(state, batch_of(0, target=length))
    shapes = [batch.tgt for batch in task.step.traced_shapes]
    assert len(shapes) == len(set(shapes)) and {(16, 6), (16, 9)} <= set(shapes)
