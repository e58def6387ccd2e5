"""Fused attention kernels compared with plain attention: outputs, gradients, packed rows, masks."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

from data.batch import Batch
from model import Transformer, TransformerConfig, short_attention
from model.attention import attention_weights, weighted_values
from model.attention_kernels import choose_kernel, fused_attention
from model.masks import Mask, causal_mask, padding_mask, segment_mask

SEGMENTS = np.array([[1] * 40 + [2] * 70 + [3] * 20 + [0] * 20, [1] * 150], np.int32)
OTHER = np.array([[1] * 90 + [2] * 30 + [3] * 40 + [0] * 10, [1] * 130 + [0] * 40], np.int32)


@pytest.fixture
def interpreted(monkeypatch):
    """Run the TPU's kernels in Pallas's interpreter, on the CPU."""
    call = partial(short_attention.pl.pallas_call, interpret=True)
    monkeypatch.setattr(short_attention, "pl", SimpleNamespace(**vars(pl) | {"pallas_call": call}))
    make = partial(splash_attention_kernel.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash_attention_kernel, "make_splash_mha", make)


def masks(name: str) -> Mask:
    q, k = jnp.asarray(SEGMENTS), jnp.asarray(OTHER)
    causal = causal_mask(150, 150)
    ones = jnp.ones_like(q)
    return {
        "packed": Mask(segment_mask(q, q), (q, q)),
        "packed causal": Mask(segment_mask(q, q) & causal[None], (q, q), causal=True),
        "packed cross": Mask(segment_mask(q, k), (q, k)),
        "causal": Mask(causal, (ones, ones), causal=True),
        "padding": Mask(padding_mask(k > 0), (ones, (k > 0).astype(jnp.int32))),
    }[name]


def plain(q, k, v, mask):
    return weighted_values(attention_weights(q, k, mask.dense), v)


def real_queries(mask):
    """Queries that may attend to a key: [B,1,T,1], True where outputs have a meaning."""
    assert mask.segments is not None
    return (mask.segments[0] > 0)[:, None, :, None]


@pytest.mark.parametrize(
    ("name", "kv_heads", "dtype"),
    [
        ("packed", 2, "float32"),
        ("packed causal", 1, "float32"),
        ("packed cross", 2, "bfloat16"),
        ("causal", 2, "float32"),
        ("padding", 2, "float32"),
    ],
)
@pytest.mark.parametrize(("kernel", "width"), [("splash", 64), ("short", 64), ("short", 128)])
@pytest.mark.slow
def test_a_kernel_equals_plain_attention(interpreted, kernel, width, name, kv_heads, dtype):
    mask, rng = masks(name), np.random.default_rng(0)
    keys = 170 if name in ("packed cross", "padding") else 150
    normal = lambda heads, n: jnp.asarray(rng.standard_normal((2, heads, n, width)), dtype)  # noqa: E731
    q, k, v = normal(2, 150), normal(kv_heads, keys), normal(kv_heads, keys)
    real = real_queries(mask)

    def loss(attend, q, k, v):
        out = jnp.where(real, attend(q, k, v, mask).astype(jnp.float32), 0.0)
        return jnp.sum(jnp.sin(out)), out

    def run(attend):
        return jax.jit(jax.value_and_grad(partial(loss, attend), (0, 1, 2), has_aux=True))(q, k, v)

    (_, expected), expected_grads = run(plain)
    (_, out), grads = run(partial(fused_attention, kernel))
    tolerance = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(out, expected, atol=tolerance)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert np.isfinite(grad.astype(jnp.float32)).all()
        np.testing.assert_allclose(
            grad.astype(jnp.float32), expected_grad.astype(jnp.float32), atol=10 * tolerance
        )


CONFIG = TransformerConfig(
    vocab_size=24, encoder_layers=1, decoder_layers=1, d_model=16, d_ff=16, num_heads=2, dropout=0.0
)


@pytest.mark.parametrize("kernel", ["splash", "short"])
@pytest.mark.slow
def test_a_model_with_a_kernel_has_the_same_loss_and_gradient(interpreted, monkeypatch, kernel):
    """Rows of two sentences and padding, in encoder, decoder and cross-attention."""
    config = replace(CONFIG, scan_layers=True, remat="full", d_model=128)
    rng = np.random.default_rng(0)
    segments = np.array([[1] * 4 + [2] * 5 + [0] * 3, [1] * 12], np.int32)
    ids = (rng.integers(4, 24, segments.shape) * (segments > 0)).astype(np.int32)
    batch = jax.tree.map(jnp.asarray, Batch(ids, ids[:, ::-1], segments, segments[:, ::-1]))
    # Packed rows number their sentences in the same order on both sides.
    batch = batch._replace(tgt=batch.src, tgt_segments=batch.src_segments)
    params = nn.unbox(Transformer(config).init_params(jax.random.key(0)))

    def loss(kernel, params):
        monkeypatch.setattr("model.attention.choose_kernel", lambda *_: (kernel, ""))
        model = Transformer(config)
        features = model.apply({"params": params}, batch, method="features")
        logits = features.hidden @ features.table.T
        losses = -jax.nn.log_softmax(logits)[:, :, 7] * features.weights
        return losses.sum()

    expected, expected_grads = jax.jit(jax.value_and_grad(partial(loss, "plain")))(params)
    value, grads = jax.jit(jax.value_and_grad(partial(loss, kernel)))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), grads, expected_grads)


@pytest.mark.parametrize("kernel", ["splash", "short"])
@pytest.mark.slow
def test_attention_never_crosses_segments(interpreted, kernel):
    """Changing one sentence of a packed row changes no output of another."""
    mask, rng = masks("packed cross"), np.random.default_rng(0)
    q = jnp.asarray(rng.standard_normal((2, 2, 150, 64)), jnp.float32)
    k, v = (jnp.asarray(rng.standard_normal((2, 2, 170, 64)), jnp.float32) for _ in range(2))
    assert mask.segments is not None
    other = (mask.segments[1] == 2)[:, None, :, None]
    attend = jax.jit(partial(fused_attention, kernel, mask=mask))
    before = attend(q, k, v)
    after = attend(q, jnp.where(other, 9.0, k), jnp.where(other, -9.0, v))
    untouched = np.asarray(SEGMENTS != 2) & (SEGMENTS > 0)
    rows = np.broadcast_to(untouched[:, None], before.shape[:3])
    np.testing.assert_array_equal(before[rows], after[rows])
    assert (np.asarray(before != after).any(-1) & ~rows).any()


@pytest.mark.parametrize(
    ("changes", "platform", "kernel", "reason"),
    [
        ({}, "cpu", "plain", ""),
        ({"attention_kernel": "plain"}, "tpu", "plain", ""),
        ({"attention_kernel": "splash"}, "tpu", "splash", ""),
        ({}, "tpu", "short", ""),
        ({"attention_kernel": "splash"}, "cpu", "plain", "does not run on cpu"),
        ({"attention_kernel": "cudnn", "dtype": "bfloat16"}, "gpu", "cudnn", ""),
        ({"attention_kernel": "cudnn"}, "gpu", "plain", "float32"),
        ({"attention_kernel": "splash", "positions": "t5_bias"}, "tpu", "plain", "t5_bias"),
        ({"attention_kernel": "splash", "attention_dropout": 0.1}, "tpu", "plain", "dropout"),
        ({"positions": "t5_bias"}, "tpu", "plain", ""),
    ],
)
def test_an_unsupported_kernel_falls_back_with_a_reason(changes, platform, kernel, reason):
    chosen, why = choose_kernel(replace(CONFIG, **changes), platform)
    assert chosen == kernel and bool(why) == bool(reason) and reason in why


@pytest.mark.parametrize(
    ("width", "heads", "length", "supported"),
    [(64, 8, 256, True), (128, 1, 256, True), (64, 8, 384, False), (64, 1, 128, False),
     (80, 8, 128, False), (32, 4, 128, True), (256, 2, 128, True)],
)  # fmt: skip
def test_the_kernel_for_short_rows_supports_full_tiles(width, heads, length, supported):
    assert short_attention.supports(width, heads, length) == supported


@pytest.mark.slow
def test_long_rows_are_attended_by_splash(interpreted, monkeypatch):
    monkeypatch.setattr(short_attention, "MAX_LENGTH", 128)
    monkeypatch.setattr(short_attention, "short_attention", lambda *_: pytest.fail("was used"))
    mask = masks("packed")
    q = jnp.ones((2, 2, 150, 64))
    out = fused_attention("short", q, q, q, mask)
    np.testing.assert_allclose(np.asarray(out)[:, :, :130], 1.0, atol=1e-5)
