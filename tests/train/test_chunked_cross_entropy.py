"""Chunked cross-entropy: same loss and gradients as with all logits at once."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import PAD, Batch
from model import Transformer, TransformerConfig
from model.family import Features
from train import chunked_cross_entropy as module
from train.chunked_cross_entropy import chunked_cross_entropy
from train.loss import cross_entropy
from train.step import eval_step

V, D = 11, 6


def features(hidden, table, bias, targets):
    return Features(hidden, table, bias, targets, (targets != PAD).astype(jnp.float32))


def unchunked(features, label_smoothing):
    hidden, table, bias, targets, _ = features
    table = table.astype(hidden.dtype)
    logits = jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias[None, None]
    return cross_entropy(logits, targets, label_smoothing)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 4),
    length=st.integers(1, 9),
    tokens=st.sampled_from([1, 8, 100]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    biased=st.booleans(),
)
def test_chunked_loss_and_gradients_equal_unchunked_ones(
    rows, length, tokens, label_smoothing, dtype, biased
):
    random = np.random.default_rng(rows * 10 + length)
    hidden = jnp.asarray(random.standard_normal((rows, length, D)), dtype)
    table = jnp.asarray(random.standard_normal((V, D)), jnp.float32)
    bias = jnp.asarray(random.standard_normal(V), jnp.float32) if biased else None
    targets = jnp.asarray(random.integers(0, V, (rows, length)), jnp.int32)  # including PAD

    def value_and_grad(function):
        def loss(hidden, table, bias):
            metrics = function(features(hidden, table, bias, targets), label_smoothing)
            return 3.0 * metrics.loss_sum, metrics

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(hidden, table, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module._TOKENS, "cpu", tokens)
        (_, chunked), gradients = value_and_grad(chunked_cross_entropy)
        without_grad = jax.jit(partial(chunked_cross_entropy, label_smoothing=label_smoothing))(
            features(hidden, table, bias, targets)
        )
    (_, expected_metrics), expected = value_and_grad(unchunked)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, chunked, expected_metrics)
    jax.tree.map(close, without_grad, expected_metrics)
    rounding = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.01}[dtype]
    for actual, reference in zip(*map(jax.tree.leaves, (gradients, expected)), strict=True):
        assert actual.dtype == reference.dtype
        actual, reference = (np.asarray(x, np.float32) for x in (actual, reference))
        np.testing.assert_allclose(
            actual, reference, atol=rounding * max(1.0, abs(reference).max())
        )


@pytest.mark.parametrize(("scale", "shift"), [(300.0, 0.0), (1.0, 1e4), (1.0, -1e4), (300.0, -1e4)])
def test_extreme_logits_have_exact_losses_and_gradients(scale, shift):
    random = np.random.default_rng(0)
    hidden = jnp.asarray(random.standard_normal((2, 5, D)), jnp.float32)
    table = jnp.asarray(scale * random.standard_normal((V, D)), jnp.float32)
    bias = jnp.full(V, shift, jnp.float32)
    targets = jnp.asarray(random.integers(1, V, (2, 5)), jnp.int32)

    def results(function):
        loss = lambda *args: function(features(*args, targets), 0.1).loss_sum  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(hidden, table, bias)

    actual, expected = results(chunked_cross_entropy), results(unchunked)
    assert np.isfinite(actual[0])
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3 * max(1.0, float(abs(b).max())))


@pytest.mark.parametrize(
    ("tying", "biased"), [("all", False), ("decoder", True), ("none", False), ("all", True)]
)
def test_logits_from_features_equal_the_models_logits(tying, biased):
    model = Transformer(
        TransformerConfig(vocab_size=20, encoder_layers=1, decoder_layers=1, d_model=8, d_ff=8,
                          num_heads=2, tying=tying, output_bias=biased)
    )  # fmt: skip
    ids = np.random.default_rng(0).integers(4, 20, (2, 5)).astype(np.int32)
    params = nn.unbox(model.init(jax.random.key(0), ids, ids))["params"]
    if biased:
        params["output_bias"] = jnp.linspace(-1.0, 1.0, 20)
    batch = Batch(ids, ids)
    hidden, table, bias, targets, weights = model.apply(
        {"params": params}, batch, method="features"
    )
    assert (targets == ids).all() and (weights == 1).all()
    logits = model.apply({"params": params}, ids, batch.tgt_in)
    from_features = jnp.einsum("btd,vd->btv", hidden, table) + (bias[None, None] if biased else 0.0)
    np.testing.assert_allclose(from_features, logits, atol=1e-5)
    unchunked_metrics, chunked_metrics = (
        eval_step(params, batch, model=model, loss_head=loss_head)
        for loss_head in (None, chunked_cross_entropy)
    )
    np.testing.assert_allclose(unchunked_metrics.nll_sum, chunked_metrics.nll_sum, rtol=1e-5)
    expected = cross_entropy(logits, jnp.asarray(ids)).nll_sum  # of the model's logits
    np.testing.assert_allclose(unchunked_metrics.nll_sum, expected, rtol=1e-5)


def test_scaled_gradients_do_not_underflow_in_float16():
    """The loss scale applies before gradients are rounded to float16, as without chunks."""
    random = np.random.default_rng(0)
    hidden = jnp.ones((1, 4, D), "float16")
    rows = random.standard_normal((V, D)).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)  # logits are 0, and 24 for the target
    rows[1] = 4.0
    table, targets = jnp.asarray(rows), jnp.ones((1, 4), jnp.int32)

    def gradient(function):
        loss = lambda h: 2.0**30 * function(features(h, table, None, targets)).loss_sum  # noqa: E731
        return np.asarray(jax.grad(loss)(hidden), np.float32)

    expected, actual = (
        gradient(partial(unchunked, label_smoothing=0.0)),
        gradient(chunked_cross_entropy),
    )
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(actual, expected, atol=0.01 * np.abs(expected).max())


def test_all_logits_are_never_in_memory_at_once():
    hidden, table = jnp.zeros((8, 1024, 16)), jnp.zeros((2000, 16))
    targets = jnp.ones((8, 1024), jnp.int32)

    def memory(function):
        loss = lambda h, t: function(features(h, t, None, targets), 0.1).loss_sum  # noqa: E731
        program = jax.jit(jax.grad(loss, (0, 1))).lower(hidden, table).compile()
        return program.memory_analysis().temp_size_in_bytes

    logits = 8 * 1024 * 2000 * 4
    assert memory(chunked_cross_entropy) < logits / 2 < logits < memory(unchunked) + 1
