"""Packed rows have the same loss and gradient as one pair per row."""

from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch_schedule import BatchSchedule
from data.pipeline import Ragged, TokenPairs, collate
from model import Transformer, TransformerConfig
from train.step import _summed_loss, eval_step

CONFIG = TransformerConfig(
    vocab_size=50, encoder_layers=2, decoder_layers=2, d_model=16, d_ff=32, num_heads=2, dropout=0.0
)
KINDS = {
    "sinusoidal": {},
    "from 2": dict(position_offset=2, norm="pre"),
    "learned": dict(positions="learned", max_length=24, norm="pre", embedding_norm=True),
    "rotary": dict(positions="rotary", num_kv_heads=1),
    "recurrent": dict(decoder_mixer="ssru", positions="sinusoidal_tensor2tensor"),
    "scanned": dict(scan_layers=True, remat="dots", positions="t5_bias", relative_num_buckets=8),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_have_the_same_loss_and_gradient(kind):
    model = Transformer(replace(CONFIG, **KINDS[kind]))
    random = np.random.default_rng(0)
    lengths = random.integers(1, 20, (2, 24))
    sides = ([random.integers(4, 50, n).tolist() for n in side] for side in lengths)
    pairs = TokenPairs(*map(Ragged, sides))
    options = dict(indices=np.arange(24), seed=0, tokens_per_batch=10_000)
    packed = collate(pairs, BatchSchedule(pairs, packed=True, **options)[0])
    unpacked = collate(pairs, BatchSchedule(pairs, count=1, **options)[0])
    assert len(packed.src) < 16 and len(unpacked.src) == 24
    params = model.init(jax.random.key(0), unpacked.src[:1], unpacked.tgt[:1])["params"]
    params = nn.unbox(params)

    @partial(jax.grad, has_aux=True)
    def gradient(params, batch):
        return _summed_loss(params, batch, jax.random.key(0), model, 0.1, None)

    (grads, metrics), (expected_grads, expected_metrics) = (
        jax.jit(gradient)(params, jax.tree.map(jnp.asarray, batch)) for batch in (packed, unpacked)
    )
    assert float(metrics.tokens) == float(expected_metrics.tokens) == lengths[1].sum() + 24
    assert float(metrics.source_tokens) == float(expected_metrics.source_tokens)
    np.testing.assert_allclose(metrics.loss_sum, expected_metrics.loss_sum, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_grads))
    assert largest > 0.1
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * largest), grads, expected_grads
    )
    evaluate = jax.jit(partial(eval_step, model=model))
    sums = [evaluate(params, jax.tree.map(jnp.asarray, b)) for b in (packed, unpacked)]
    np.testing.assert_allclose(sums[0].nll_sum, sums[1].nll_sum, rtol=1e-5)
