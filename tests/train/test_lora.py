"""Adapters are trained, stored and averaged; what they adapt is neither changed nor stored."""

from functools import cache
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from model import Transformer, TransformerConfig
from model.lora import LoRAModel
from model.sharding import make_mesh
from train.checkpoint import CheckpointError, CheckpointManager
from train.merge_adapters import make_merge_fn
from train.optimizer import make_optimizer, make_schedule
from train.state import abstract_params, abstract_state, create_state
from train.step import make_eval_step, make_train_step

CONFIG = TransformerConfig(
    vocab_size=32, encoder_layers=1, decoder_layers=1, d_model=16, d_ff=32, num_heads=2
)
PROJECTIONS = ("query", "value", "out", "hidden", "feed_forward_out")
META = {"vocabulary": "abc"}


@cache
def task(mesh=None, ema_decay=0.0, grad_accum_steps=1, dtype="float32", dropout=0.0):
    """All that training adapters needs."""
    config = dict(vars(CONFIG), dtype=dtype, dropout=dropout)
    plain = Transformer(TransformerConfig(**config))
    model = LoRAModel(plain, 2, 4.0, PROJECTIONS)
    schedule = make_schedule("inverse_sqrt", learning_rate=0.01, warmup_steps=4)
    tx = make_optimizer("adamw", schedule, weight_decay=0.01, clip_norm=1.0)
    mesh = make_mesh(*mesh) if mesh else make_mesh(1, devices=jax.devices()[:1])
    options = dict(label_smoothing=0.1, grad_accum_steps=grad_accum_steps, ema_decay=ema_decay)
    step = make_train_step(model, tx, mesh, **options)
    ema = ema_decay > 0

    @cache
    def created():
        base = create_state(plain, tx, jax.random.key(5), mesh).params
        return create_state(model, tx, jax.random.key(0), mesh, ema=ema, base=base)

    def fresh():
        return jax.tree.map(lambda x: x.copy(), created())  # updates take its memory

    abstract = abstract_state(model, tx, mesh, ema=ema)
    return SimpleNamespace(
        plain=plain, model=model, mesh=mesh, step=step, fresh=fresh, abstract=abstract
    )


def trained(task, batch_of, steps=3):
    """The state after some updates, and each one's loss and norm of the gradient."""
    state, told = task.fresh(), []
    for i in range(steps):
        state, metrics = task.step(state, batch_of(i))
        told.append((float(metrics.loss), float(metrics.grad_norm_sum)))
    return state, told


def differ(left, right):
    return [(x != y).any() for x, y in zip(*map(jax.tree.leaves, (left, right)), strict=True)]


@pytest.mark.slow
def test_adapters_are_updated_and_what_they_adapt_is_not(batch_of, bits):
    """With all that an update can have: parts of a batch, an average, float16's scale, dropout."""
    own = task(ema_decay=0.5, grad_accum_steps=2, dtype="float16", dropout=0.1)
    before = bits(own.fresh())
    after, told = trained(own, batch_of)
    after = bits(after)
    assert not any(differ(before.base, after.base)) and np.isfinite(told).all()
    assert all(differ(before.params, after.params)) and all(differ(after.params, after.ema))
    moments = next(each for each in after.opt_state if hasattr(each, "mu"))
    assert jax.tree.structure(moments.mu) == jax.tree.structure(after.params)
    assert after.loss_scale.good == after.step == 3


@pytest.mark.slow
def test_devices_share_the_work_and_agree(batch_of, bits):
    one, many = task(), task((2, 2, 2))
    (first, told_one), (second, told_many) = (trained(each, batch_of) for each in (one, many))
    np.testing.assert_allclose(told_many, told_one, rtol=1e-4)
    layout = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)  # noqa: E731
    assert layout(second) == layout(many.abstract)
    wholes = [make_merge_fn(t.model, t.mesh)(s.weights, s.base) for t, s in
              ((one, first), (many, second))]  # fmt: skip
    assert layout(wholes[1]) == layout(abstract_params(many.plain, many.mesh))
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4)  # noqa: E731
    jax.tree.map(close, bits(wholes[1]), bits(wholes[0]))
    value = second.params["decoder_0"]["cross_attention"]["value"]
    assert {s.data.shape for s in value.a.addressable_shards} == {(8, 2)}
    assert {s.data.shape for s in value.b.addressable_shards} == {(2, 1, 8)}


def test_the_whole_model_is_what_was_trained(batch_of, bits):
    """Its loss is that of the step, and matrices without an adapter are the base's own arrays."""
    own = task()
    state, _ = trained(own, batch_of)
    whole = make_merge_fn(own.model, own.mesh)(state.weights, state.base)
    assert whole["embedding"]["table"] is state.base["embedding"]["table"]
    loss = make_eval_step(own.plain, own.mesh, label_smoothing=0.1)(whole, batch_of(9)).loss
    _, metrics = own.step(state, batch_of(9))
    np.testing.assert_allclose(loss, metrics.loss, rtol=1e-5)
    assert make_merge_fn(own.plain, own.mesh)(whole, None) is whole


def test_a_checkpoint_holds_adapters_and_their_optimizer_only(batch_of, bits, folder):
    own = task(ema_decay=0.5)
    state, _ = trained(own, batch_of)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(3, state, META)
    stored = ocp.checkpointables_metadata(folder / "3").metadata
    assert stored.keys() == {"params", "rest", "ema", "meta"}
    sizes = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    count = lambda tree: sum(np.prod(x.shape) for x in jax.tree.leaves(tree))  # noqa: E731
    assert count(stored["params"]) == count(stored["ema"]) == sizes(state.params)
    few = 8  # the counts of steps and what a key consists of
    assert 0 <= count(stored["rest"]) - 2 * sizes(state.params) <= few
    assert "embedding" not in str(stored) and sizes(state.base) > sizes(state.params)
    with CheckpointManager(folder) as checkpoints:
        back = checkpoints.restore("last", own.abstract._replace(base=state.base))
    assert back.base is state.base
    states = bits(back), bits(state)
    assert not any(differ(*states)) and jax.tree.structure(back) == jax.tree.structure(state)
    with (
        CheckpointManager(folder) as checkpoints,
        pytest.raises(CheckpointError, match="another model"),
    ):
        checkpoints.restore_params("last", abstract_params(own.plain, own.mesh))


def test_a_mean_of_checkpoints_is_that_of_merged_weights(batch_of, bits, folder):
    own = task()
    whole, state, each = make_merge_fn(own.model, own.mesh), own.fresh(), []
    merge = lambda params: whole(params, own.fresh().base)  # noqa: E731
    with CheckpointManager(folder) as checkpoints:
        for i in range(2):
            for _ in range(3):
                state, _ = own.step(state, batch_of(i))
            checkpoints.save(int(state.step), state, META)
            each.append((bits(state.params), bits(merge(state.params))))
        checkpoints.wait()
        shapes = abstract_params(own.model, own.mesh)
        mean = bits(checkpoints.restore_params("average:2", shapes, merge))
    params, wholes = zip(*each, strict=True)
    half = lambda x, y: (x + y) / 2  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, mean, jax.tree.map(half, *wholes))
    other = bits(merge(jax.tree.map(half, *params)))["encoder_0"]["attention"]["query"]
    assert np.abs(other - mean["encoder_0"]["attention"]["query"]).max() > 1e-4
