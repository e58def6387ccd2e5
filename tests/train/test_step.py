"""An update is the same however it is cut up: over micro-batches, over devices, over a donation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from data.batch import PAD, Batch, shift_right
from train.loss import cross_entropy
from train.state import abstract_params, abstract_state, create_state
from train.step import compile_eval_step, eval_step, train_step

MESHES = [(8, 1, 1), (2, 2, 2), None]  # None: one device


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.fixture(scope="module")
def reference(tiny, batch_of, bits):
    """Three updates on one device: the states' weights and the metrics."""
    return run(tiny(None), batch_of, bits)


def run(task, batch_of, bits, steps=3):
    state, told = task.fresh(), []
    for i in range(steps):
        state, metrics = task.step(state, batch_of(i))
        told.append(bits(metrics))
    return bits(state._replace(opt_state=None)), told


@pytest.mark.parametrize("mesh", MESHES[:2], ids=str)
def test_devices_share_the_work_and_not_the_result(tiny, batch_of, bits, reference, mesh):
    # Three updates, as Adam's first is by the gradient's sign alone, whatever its size.
    state, told = run(tiny(mesh), batch_of, bits)
    close(told, reference[1], rtol=1e-4)
    close(state.params, reference[0].params, atol=2e-4)
    assert state.step == 3


def test_the_mesh_lays_out_parameters_and_all_that_looks_like_them(tiny):
    task = tiny((2, 2, 2), ema_decay=0.5)
    state = task.fresh()
    moments = next(each for each in state.opt_state if hasattr(each, "mu"))
    for tree in (state.params, moments.mu, moments.nu, state.ema):
        assert tree["embedding"]["table"].sharding.spec == P("tensor", "fsdp")
        assert len({s.index for s in tree["embedding"]["table"].addressable_shards}) == 4
    assert state.step.sharding.spec == P()
    new, _ = task.step(state, Batch(np.ones((8, 4), np.int32), np.ones((8, 4), np.int32)))
    laid_out = abstract_state(task.model, task.tx, task.mesh, ema=True)
    jax.tree.map(lambda x, a: (x.sharding == a.sharding) or pytest.fail(str(a)), new, laid_out)
    alone = abstract_params(task.model, task.mesh)
    assert jax.tree.map(lambda x: x.sharding, alone) == jax.tree.map(
        lambda x: x.sharding, laid_out.params
    )


def test_the_models_constraints_reach_the_compiler(tiny, batch_of):
    from model.sharding import use_mesh

    task = tiny((2, 2, 2))
    with use_mesh(task.mesh):
        text = task.step.jitted.lower(task.fresh(), batch_of(0)).as_text()
    assert text.count("sharding_constraint") > 5


def test_init_depends_on_the_seed_and_not_on_the_mesh(tiny, bits):
    one, eight = bits(tiny(None).fresh(1).params), bits(tiny((2, 2, 2)).fresh(1).params)
    close(one, eight, rtol=0, atol=0)
    other = bits(tiny(None).fresh(2).params)
    assert (one["embedding"]["table"] != other["embedding"]["table"]).all()


@pytest.mark.parametrize("mesh", MESHES[1:], ids=str)
def test_micro_batches_add_up_to_the_whole(tiny, batch_of, bits, mesh):
    whole, parts = (
        run(tiny(mesh, dropout=0.0, accumulate=n), batch_of, bits, steps=2) for n in (1, 4)
    )
    close(parts[1], whole[1], rtol=2e-5)  # loss and gradient norm, before and after an update
    close(parts[0].params, whole[0].params, atol=2e-5)


def test_micro_batches_draw_dropout_apart(tiny, batch_of):
    task = tiny(None, dropout=0.5, accumulate=2)
    half = batch_of(0, rows=8)
    twice = Batch(*(np.repeat(x, 2, axis=0) for x in half))  # parts of equal rows
    state = task.fresh()
    _, both = task.pure(state, twice)
    key = jax.random.fold_in(jax.random.fold_in(state.rng, 0), 0)
    logits = task.model.apply(
        {"params": state.params}, half.src, shift_right(half.tgt), train=True, rngs={"dropout": key}
    )
    first = cross_entropy(logits, jnp.asarray(half.tgt), 0.1)
    second = float(both.loss_sum - first.loss_sum)
    assert both.tokens == 2 * first.tokens
    assert abs(second - float(first.loss_sum)) > 1e-3


def test_rows_that_do_not_divide_are_refused(tiny, batch_of):
    with pytest.raises(ValueError, match="16 rows cannot be split into 3"):
        task = tiny(None, accumulate=3)
        task.step(task.fresh(), batch_of(0))


def test_dropout_differs_from_step_to_step_and_repeats_with_the_state(tiny, batch_of):
    task = tiny(None, dropout=0.5)
    state, batch = task.fresh(), batch_of(0)
    loss = lambda state: float(task.pure(state, batch)[1].loss)  # noqa: E731
    assert loss(state) == loss(state)
    assert loss(state) != loss(state._replace(step=jnp.int32(1)))


def test_the_gradient_is_of_the_mean_over_real_tokens(tiny, batch_of):
    """Padding added to a batch changes neither the loss nor the update."""
    task = tiny(None, dropout=0.0)
    state, batch = task.fresh(), batch_of(0)
    wide = Batch(*(np.pad(x, ((0, 4), (0, 5)), constant_values=PAD) for x in batch))
    (a, told_a), (b, told_b) = (task.pure(state, x) for x in (batch, wide))
    close(a.params, b.params, atol=1e-5)
    assert told_a.tokens == told_b.tokens == np.count_nonzero(batch.tgt)
    assert told_a.source_tokens == told_b.source_tokens == np.count_nonzero(batch.src)
    assert told_a.slots == batch.src.size + batch.tgt.size and told_b.slots > told_a.slots
    assert told_a.updates == 1

    def mean_loss(params):
        logits = task.model.apply({"params": params}, batch.src, shift_right(batch.tgt))
        return cross_entropy(logits, jnp.asarray(batch.tgt), 0.1).loss

    grads = jax.tree.leaves(jax.jit(jax.grad(mean_loss))(state.params))
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in grads))
    assert float(told_a.grad_norm_sum) == pytest.approx(norm, rel=1e-5)


def test_a_batch_of_nothing_is_no_disaster(tiny):
    task = tiny(None)
    empty = Batch(np.zeros((2, 3), np.int32), np.zeros((2, 3), np.int32))
    state, metrics = task.step(task.fresh(), empty)
    assert metrics.tokens == 0 and metrics.loss_sum == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_the_old_state_is_given_up(tiny, batch_of):
    task = tiny((8, 1, 1), ema_decay=0.9)
    old = task.fresh()
    task.step(old, batch_of(0))
    big = [x for x in jax.tree.leaves((old.params, old.opt_state, old.ema)) if x.ndim]
    assert all(x.is_deleted() for x in big)


def test_the_average_follows_its_formula(tiny, batch_of, bits):
    task = tiny(None, ema_decay=0.5)
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
    assert state.weights is state.ema and task.fresh().ema is not None
    assert tiny(None).fresh().ema is None


def test_an_average_that_is_not_kept_is_refused(tiny, batch_of):
    task = tiny(None)
    options = dict(model=task.model, tx=task.tx, smoothing=0.0, ema_decay=0.9)
    with pytest.raises(ValueError, match="keeps no average"):
        train_step(task.fresh(), batch_of(0), **options)


def test_evaluation_is_without_dropout_and_alike_on_every_mesh(tiny, batch_of, bits):
    batch = batch_of(0)
    told = []
    for mesh in MESHES:
        task = tiny(mesh, dropout=0.5)
        evaluate = compile_eval_step(task.model, task.mesh, smoothing=0.1)
        told.append(bits(evaluate(task.fresh().params, batch)))
    close(told[0], told[1], rtol=1e-5)
    close(told[0], told[2], rtol=1e-5)
    state = create_state(task.model, task.tx, jax.random.key(0), task.mesh)
    plain = jax.jit(partial(eval_step, model=task.model))(state.params, batch)
    assert float(plain.loss_sum) == float(plain.nll_sum)
    assert float(plain.nll_sum) == pytest.approx(told[0].nll_sum, rel=1e-5)


def test_one_jit_serves_all_shapes(tiny, batch_of):
    task = tiny(None)
    state = task.fresh()
    for length in (5, 6, 5, 6):
        state, _ = task.step(state, batch_of(0, target=length))
    assert task.step.jitted._cache_size() == 2
