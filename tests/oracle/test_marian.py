"""The same weights give the same logits, and the same translations, in Hugging Face's Marian.

Its beam search stops as `first` does (`early_stopping=True`) and divides by n^alpha (`average`).
"""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks import transformers_system
from benchmarks.marian import marian
from benchmarks.workloads import workload
from data.batch import BOS, EOS, PAD, UNK
from decode.options import SearchOptions
from decode.search import search
from decode.weights import pack
from model import Transformer, TransformerConfig
from tests.decode.small import asked

D, H, F, V = 32, 4, 48, 40
LIMIT = 40
LEAN = 8.0


@pytest.fixture(scope="module", params=["silu", "relu"])
def pair(request):
    """Our model and parameters, and theirs."""
    config = TransformerConfig(
        vocab_size=V,
        encoder_layers=2,
        decoder_layers=3,
        d_model=D,
        d_ff=F,
        num_heads=H,
        positions="sinusoidal_halves",
        activation=request.param,
        attention_bias=True,
        norm_epsilon=1e-5,
    )
    model, ids = Transformer(config), jnp.ones((1, 2), jnp.int32)
    params = nn.unbox(model.init(jax.random.key(0), ids, ids))["params"]
    noise = lambda p: 1.5 * p + 0.2 * jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    params = jax.tree.map(noise, params)
    # The last bias leans to EOS, or random models hardly ever end.
    last, eos = params["decoder_2"]["feed_forward_frame"]["norm"], params["embedding"]["table"][EOS]
    last["bias"] += LEAN * eos / jnp.square(eos).sum()
    return model, params, marian(config, params, 64)


def sources(count, seed=0):
    random = np.random.default_rng(seed)
    src = random.integers(4, V, (count, 9)).astype(np.int32)
    for row, end in zip(src, random.integers(1, 9, count), strict=True):
        row[end], row[end + 1 :] = EOS, PAD
    return src


def test_logits_are_equal(pair):
    model, params, theirs = pair
    src = sources(6)
    tgt = np.concatenate([np.full((6, 1), BOS, np.int32), sources(6, 1)[:, :5]], 1)
    ours = model.apply({"params": params}, jnp.asarray(src), jnp.asarray(tgt))
    with torch.no_grad():
        logits = theirs(
            input_ids=torch.from_numpy(src).long(),
            attention_mask=torch.from_numpy(src != PAD).long(),
            decoder_input_ids=torch.from_numpy(tgt).long(),
        ).logits
    np.testing.assert_allclose(ours, logits.numpy(), atol=2e-5, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("beams", "alpha"), [(1, 1.0), (4, 0.6), (4, 1.0), (6, 1.0)])
def test_translations_are_equal(pair, beams, alpha):
    model, params, theirs = pair
    src = sources(60, seed=2)
    options = SearchOptions(beam_size=beams, penalty="average", alpha=alpha, n_best=beams)
    found = jax.jit(
        lambda src: search(
            [model.config],
            [pack(model.config, params)],
            asked(src, LIMIT),
            options=options,
            max_length=LIMIT,
        )
    )(jnp.asarray(src))
    with torch.no_grad():
        output = theirs.generate(
            torch.from_numpy(src).long(),
            attention_mask=torch.from_numpy(src != PAD).long(),
            num_beams=beams,
            length_penalty=alpha,
            early_stopping=beams > 1,
            max_new_tokens=LIMIT,
            suppress_tokens=[PAD, BOS, UNK],
            do_sample=False,
        ).numpy()[:, 1:]
    ended = 0
    for row, length, other in zip(found.tokens[:, 0], found.lengths[:, 0], output, strict=True):
        if length < LIMIT:  # at the limit Marian cuts, and we end
            ended += 1
            assert row[:length].tolist() == other[:length].tolist()
            assert set(other[length:]) <= {PAD, EOS}
    assert ended >= 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["W2", "W4"])
def test_the_benchmark_runs_it_to_the_lengths_of_the_workload(name):
    config = TransformerConfig(
        vocab_size=V, d_model=D, d_ff=F, num_heads=H, encoder_layers=1, decoder_layers=1
    )
    work = workload(name, config)
    work = replace(work, sources=work.sources[:5], lengths=work.lengths[:5])
    run, _ = transformers_system.make(config, work, "bfloat16", 1, 0)
    run()  # it checks the lengths itself
