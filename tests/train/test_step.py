"""An update is the same however it is cut up: over micro-batches, over devices, over a donation."""

from functools import partial

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

ONE = None  # device

pytestmark = pytest.mark.usefixtures("optimised")


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def run(task, batch_of, bits, steps=3):
    """Some updates -> the last state, for its weights, and what each told."""
    state, told = task.fresh(), []
    for i in range(steps):
        state, metrics = task.step(state, batch_of(i))
        told.append(bits(metrics))
    return bits(state._replace(opt_state=None)), told


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_devices_share_the_work_and_agree(tiny, batch_of, bits, mesh):
    # Three updates, as Adam's first is by the gradient's sign alone, whatever its size.
    one, told_one = run(tiny(ONE), batch_of, bits)
    many, told_many = run(tiny(mesh), batch_of, bits)
    close(told_many, told_one, rtol=1e-4)
    close(many.params, one.params, atol=2e-4)
    close(many.ema, one.ema, atol=2e-4)
    assert many.step == 3


@pytest.mark.slow
def test_the_mesh_lays_out_parameters_and_all_that_looks_like_them(tiny, batch_of):
    task = tiny((2, 2, 2))
    state = task.fresh()
    moments = next(each for each in state.opt_state if hasattr(each, "mu"))
    for tree in (state.params, moments.mu, moments.nu, state.ema):
        table = tree["embedding"]["table"]
        assert table.sharding.spec == P("tensor", "fsdp")
        assert {s.data.shape for s in table.addressable_shards} == {(16, 8)}
    assert state.step.sharding.spec == P()
    after, _ = task.step(state, batch_of(0))
    laid_out = abstract_state(task.model, task.tx, task.mesh, ema=True)
    layout = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)  # noqa: E731
    assert layout(after) == layout(laid_out)
    assert layout(abstract_params(task.model, task.mesh)) == layout(laid_out.params)


def test_the_models_constraints_reach_the_compiler(tiny, batch_of):
    task = tiny((2, 2, 2))
    with use_mesh(task.mesh):
        text = task.step.jitted.lower(task.fresh(), batch_of(0)).as_text()
    assert text.count("sharding_constraint") > 5


def test_init_depends_on_the_seed_and_not_on_the_mesh(tiny, bits):
    one, eight = bits(tiny(ONE).fresh(1).params), bits(tiny((2, 2, 2)).fresh(1).params)
    close(one, eight, rtol=0, atol=0)
    other = bits(tiny(ONE).fresh(2).params)
    assert (one["embedding"]["table"] != other["embedding"]["table"]).all()


def test_micro_batches_add_up_to_the_whole(tiny, batch_of, bits):
    whole, told_whole = run(tiny(ONE, dropout=0.0), batch_of, bits, steps=2)
    parts, told_parts = run(
        tiny((2, 2, 2), dropout=0.0, grad_accum_steps=4), batch_of, bits, steps=2
    )
    close(told_parts, told_whole, rtol=1e-4)  # loss and gradient norm, before and after an update
    close(parts.params, whole.params, atol=1e-4)


class Noise:
    """A model whose logits are its bias and whatever dropout's key brings."""

    def __init__(self, scale):
        self.scale = scale

    def apply(self, variables, batch, method, train, rngs):
        noise = jax.random.normal(rngs["dropout"], (*batch.tgt.shape, 8))
        return features_of(variables["params"]["bias"] + self.scale * noise, batch)


@pytest.fixture
def noisy():
    """The first update after `step` ones, on rows of ones, by the noise model."""
    tx = optax.sgd(1.0)

    def update(step, rows=4, grad_accum_steps=1, scale=1.0):
        params = {"bias": jnp.zeros((1, 1, 8))}
        state = TrainState(jnp.int32(step), params, tx.init(params), jax.random.key(0))
        batch = Batch(*np.ones((2, rows, 3), np.int32))
        options = dict(
            model=Noise(scale), tx=tx, label_smoothing=0.1, grad_accum_steps=grad_accum_steps
        )
        return train_step(state, batch, **options)

    return update


def test_dropout_changes_from_step_to_step_and_repeats_with_the_state(noisy):
    first, again, second = (noisy(step)[1].loss for step in (0, 0, 1))
    assert first == again != second


@pytest.mark.slow
def test_micro_batches_draw_dropout_apart(noisy):
    one, two, four = (noisy(0, rows=2 * n, grad_accum_steps=n)[1] for n in (1, 2, 4))
    assert two.tokens == 2 * one.tokens
    assert len({float(each.loss) for each in (one, two, four)}) == 3


def test_rows_that_do_not_divide_are_refused(noisy):
    with pytest.raises(ValueError, match="4 rows cannot be split into 3"):
        noisy(0, grad_accum_steps=3)


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_the_gradient_is_the_mean_over_tokens(noisy, grad_accum_steps):
    state, metrics = noisy(0, grad_accum_steps=grad_accum_steps, scale=0.0)
    aim = 0.9 * np.eye(8)[1] + 0.1 / 8
    gradient = np.full(8, 1 / 8) - aim  # softmax of equal logits, less the smoothed target
    np.testing.assert_allclose(-state.params["bias"][0, 0], gradient, atol=1e-6)
    assert metrics.grad_norm_sum == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


@pytest.mark.slow
def test_padding_changes_neither_loss_nor_update(tiny, batch_of, bits):
    task, batch = tiny(ONE, dropout=0.0), batch_of(0)
    wide = Batch(*(np.pad(x, ((0, 4), (0, 5)), constant_values=PAD) for x in batch[:2]))
    (a, told_a), (b, told_b) = (bits(task.step(task.fresh(), x)) for x in (batch, wide))
    close(a.params, b.params, atol=1e-4)
    close(told_a._replace(num_positions=0), told_b._replace(num_positions=0), rtol=1e-4)
    assert told_a.tokens == np.count_nonzero(batch.tgt)
    assert told_a.source_tokens == np.count_nonzero(batch.src)
    assert (
        told_a.num_positions == batch.src.size + batch.tgt.size
        and told_b.num_positions > told_a.num_positions
    )
    assert told_a.updates == 1


@pytest.mark.slow
def test_empty_rows_change_nothing_dropout_included(tiny, batch_of, bits):
    task, batch = tiny(ONE), batch_of(0)
    more = Batch(*(np.pad(x, ((0, 16), (0, 0)), constant_values=PAD) for x in batch[:2]))
    (a, told_a), (b, told_b) = (bits(task.step(task.fresh(), x)) for x in (batch, more))
    close(told_a._replace(num_positions=0), told_b._replace(num_positions=0), rtol=1e-5)
    close(a.ema, b.ema, atol=1e-4)


def test_a_batch_of_nothing_is_no_disaster(tiny, batch_of):
    task = tiny(ONE)
    state, metrics = task.step(task.fresh(), jax.tree.map(np.zeros_like, batch_of(0)))
    assert metrics.tokens == 0 and metrics.loss_sum == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_the_old_state_is_given_up(tiny, batch_of):
    task = tiny((8, 1, 1))
    old = task.fresh()
    task.step(old, batch_of(0))
    big = [x for x in jax.tree.leaves((old.params, old.opt_state, old.ema)) if x.ndim]
    assert big and all(x.is_deleted() for x in big)


def test_the_average_follows_its_formula(tiny, batch_of, bits):
    task = tiny(ONE)
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
    assert state.weights is state.ema and state._replace(ema=None).weights is state.params


def test_an_average_that_is_not_kept_is_refused(tiny, batch_of):
    task = tiny(ONE)
    step = partial(train_step, model=task.model, tx=task.tx, label_smoothing=0.0, ema_decay=0.9)
    without = abstract_state(task.model, task.tx, task.mesh, ema=False)
    with pytest.raises(ValueError, match="keeps no average"):
        jax.eval_shape(step, without, batch_of(0))


@pytest.mark.slow
def test_evaluation_is_alike_on_every_mesh(tiny, batch_of, bits):
    batch = batch_of(0)
    one, many = (
        bits(
            make_eval_step(task.model, task.mesh, label_smoothing=0.1)(task.fresh().weights, batch)
        )
        for task in (tiny(ONE), tiny((2, 2, 2)))
    )
    close(one, many, rtol=1e-5)
    assert one.source_tokens == np.count_nonzero(batch.src)
    assert one.loss_sum > 0 and one.loss_sum != one.nll_sum


def test_evaluation_is_without_dropout():
    class Still:
        def apply(self, variables, batch, method, train):  # takes no keys
            assert train is False
            return features_of(jnp.zeros((*batch.tgt.shape, 8)) + variables["params"], batch)

    batch = Batch(*np.ones((2, 4, 3), np.int32))
    metrics = eval_step(jnp.zeros((1, 1, 8)), batch, model=Still())
    assert float(metrics.loss) == pytest.approx(np.log(8))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [ONE, (2, 2, 2)], ids=str)
def test_one_jit_serves_all_shapes(tiny, batch_of, mesh):
    task = tiny(mesh)
    state = task.fresh()
    for length in (6, 9, 6, 9):
        state, _ = task.step(state, batch_of(0, target=length))
    shapes = [batch.tgt for batch in task.step.traced]
    assert len(shapes) == len(set(shapes)) and {(16, 6), (16, 9)} <= set(shapes)
