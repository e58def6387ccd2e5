"""LoRA training: adapters are trained, saved and averaged; the base is neither."""

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
    """Setup for training adapters."""
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
    def initial_state():
        base = create_state(plain, tx, jax.random.key(5), mesh).params
        return create_state(model, tx, jax.random.key(0), mesh, ema=ema, base=base)

    def fresh():
        return jax.tree.map(lambda x: x.copy(), initial_state())  # updates donate the state

    abstract = abstract_state(model, tx, mesh, ema=ema)
    return SimpleNamespace(
        plain=plain, model=model, mesh=mesh, step=step, fresh=fresh, abstract=abstract
    )


def trained(task, batch_of, steps=3):
    """The state after some updates, and the loss and gradient norm of each."""
    state, losses_and_norms = task.fresh(), []
    for i in range(steps):
        state, metrics = task.step(state, batch_of(i))
        losses_and_norms.append((float(metrics.loss), float(metrics.grad_norm_sum)))
    return state, losses_and_norms


def differ(left, right):
    leaves = zip(*map(jax.tree.leaves, (left, right)), strict=True)
    differences = [(x != y).any() for x, y in leaves]
    assert differences
    return differences


@pytest.mark.slow
def test_adapters_are_updated_and_base_params_are_not(batch_of, bits):
    """With gradient accumulation, EMA, a float16 loss scale and dropout."""
    setup = task(ema_decay=0.5, grad_accum_steps=2, dtype="float16", dropout=0.1)
    before = bits(setup.fresh())
    after, losses_and_norms = trained(setup, batch_of)
    after = bits(after)
    assert not any(differ(before.base, after.base)) and np.isfinite(losses_and_norms).all()
    assert all(differ(before.params, after.params)) and all(differ(after.params, after.ema))
    moments = next(s for s in after.opt_state if hasattr(s, "mu"))
    assert jax.tree.structure(moments.mu) == jax.tree.structure(after.params)
    assert after.loss_scale.good == after.step == 3


@pytest.mark.slow
def test_sharded_training_equals_one_device(batch_of, bits):
    single, sharded = task(), task((2, 2, 2))
    (first, metrics_single), (second, metrics_sharded) = (
        trained(t, batch_of) for t in (single, sharded)
    )
    np.testing.assert_allclose(metrics_sharded, metrics_single, rtol=1e-4)
    layout = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)  # noqa: E731
    assert layout(second) == layout(sharded.abstract)
    merged = [make_merge_fn(t.model, t.mesh)(s.eval_params, s.base) for t, s in
              ((single, first), (sharded, second))]  # fmt: skip
    assert layout(merged[1]) == layout(abstract_params(sharded.plain, sharded.mesh))
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4)  # noqa: E731
    jax.tree.map(close, bits(merged[1]), bits(merged[0]))
    value = second.params["decoder_0"]["cross_attention"]["value"]
    assert {s.data.shape for s in value.a.addressable_shards} == {(8, 2)}
    assert {s.data.shape for s in value.b.addressable_shards} == {(2, 1, 8)}


def test_the_merged_model_equals_the_trained_model(batch_of, bits):
    """The merged model has the step's loss; matrices without an adapter are the base's arrays."""
    setup = task()
    state, _ = trained(setup, batch_of)
    merged = make_merge_fn(setup.model, setup.mesh)(state.eval_params, state.base)
    assert merged["embedding"]["table"] is state.base["embedding"]["table"]
    loss = make_eval_step(setup.plain, setup.mesh, label_smoothing=0.1)(merged, batch_of(9)).loss
    _, metrics = setup.step(state, batch_of(9))
    np.testing.assert_allclose(loss, metrics.loss, rtol=1e-5)
    assert make_merge_fn(setup.plain, setup.mesh)(merged, None) is merged


def test_a_checkpoint_has_only_adapters_and_their_optimizer_state(batch_of, bits, folder):
    setup = task(ema_decay=0.5)
    state, _ = trained(setup, batch_of)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(3, state, META)
    stored = ocp.checkpointables_metadata(folder / "3").metadata
    assert stored.keys() == {"params", "rest", "ema", "meta"}
    sizes = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    count = lambda tree: sum(np.prod(x.shape) for x in jax.tree.leaves(tree))  # noqa: E731
    assert count(stored["params"]) == count(stored["ema"]) == sizes(state.params)
    num_counters = 8  # step counters and a PRNG key
    assert 0 <= count(stored["rest"]) - 2 * sizes(state.params) <= num_counters
    assert "embedding" not in str(stored) and sizes(state.base) > sizes(state.params)
    with CheckpointManager(folder) as checkpoints:
        restored = checkpoints.restore("last", setup.abstract._replace(base=state.base))
    assert restored.base is state.base
    states = bits(restored), bits(state)
    assert not any(differ(*states)) and jax.tree.structure(restored) == jax.tree.structure(state)
    with (
        CheckpointManager(folder) as checkpoints,
        pytest.raises(CheckpointError, match="another model"),
    ):
        checkpoints.restore_params("last", abstract_params(setup.plain, setup.mesh))


def test_averaged_checkpoints_average_merged_weights(batch_of, bits, folder):
    setup = task()
    merge_fn, state, saved = make_merge_fn(setup.model, setup.mesh), setup.fresh(), []
    merge = lambda params: merge_fn(params, setup.fresh().base)  # noqa: E731
    with CheckpointManager(folder) as checkpoints:
        for i in range(2):
            for _ in range(3):
                state, _ = setup.step(state, batch_of(i))
            checkpoints.save(int(state.step), state, META)
            saved.append((bits(state.params), bits(merge(state.params))))
        checkpoints.wait()
        shapes = abstract_params(setup.model, setup.mesh)
        mean = bits(checkpoints.restore_params("average:2", shapes, merge))
    params, merged = zip(*saved, strict=True)
    average = lambda x, y: (x + y) / 2  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, mean, jax.tree.map(average, *merged))
    merged_average = bits(merge(jax.tree.map(average, *params)))["encoder_0"]["attention"]["query"]
    assert np.abs(merged_average - mean["encoder_0"]["attention"]["query"]).max() > 1e-4
