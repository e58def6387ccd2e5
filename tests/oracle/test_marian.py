"""Same weights, same logits and translations as in Hugging Face's Marian.

Its beam search stops like `full` (`early_stopping=True`) and divides by n^alpha (`average`).
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
from decode.families import make_generator
from decode.options import SearchOptions
from decode.search import search
from decode.weights import pack
from model import Transformer, TransformerConfig
from tests.decode.tiny_model import search_batch

D, H, F, V = 32, 4, 48, 40
LIMIT = 40


def make_pair(activation, scale, noise, eos_bias=0.0):
    """Heed's model, its random parameters, and Hugging Face's model with the same weights.

    `eos_bias` is added to EOS along slowly growing position dimensions: EOS is likelier in longer
    outputs. Without it, random models end immediately or never.
    """
    config = TransformerConfig(
        vocab_size=V,
        encoder_layers=2,
        decoder_layers=3,
        d_model=D,
        d_ff=F,
        num_heads=H,
        positions="sinusoidal_concat",
        activation=activation,
        attention_bias=True,
        norm_epsilon=1e-5,
    )
    model, ids = Transformer(config), jnp.ones((1, 2), jnp.int32)
    params = nn.unbox(model.init(jax.random.key(0), ids, ids))["params"]
    normal = lambda p: jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    params = jax.tree.map(lambda p: scale * p + noise * normal(p), params)
    embedding = params["embedding"]
    embedding["table"] = embedding["table"].at[EOS, 3:7].add(eos_bias)
    return model, params, marian(config, params, 64)


@pytest.fixture(scope="module", params=["silu", "relu"])
def pair(request):
    return make_pair(request.param, 1.5, 0.2)


@pytest.fixture(scope="module", params=["silu", "relu"])
def ending_pair(request):
    return make_pair(request.param, 0.5, 0.05, eos_bias=1.0)


def sources(count, seed=0):
    random = np.random.default_rng(seed)
    src = random.integers(4, V, (count, 9)).astype(np.int32)
    for row, end in zip(src, random.integers(1, 9, count), strict=True):
        row[end], row[end + 1 :] = EOS, PAD
    return src


def test_logits_are_equal(pair):
    model, params, reference = pair
    src = sources(6)
    tgt = np.concatenate([np.full((6, 1), BOS, np.int32), sources(6, 1)[:, :5]], 1)
    actual = model.apply({"params": params}, jnp.asarray(src), jnp.asarray(tgt))
    with torch.no_grad():
        logits = reference(
            input_ids=torch.from_numpy(src).long(),
            attention_mask=torch.from_numpy(src != PAD).long(),
            decoder_input_ids=torch.from_numpy(tgt).long(),
        ).logits
    np.testing.assert_allclose(actual, logits.numpy(), atol=2e-5, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("beams", "alpha"), [(1, 1.0), (4, 0.6), (4, 1.0), (6, 1.0), ("greedy", 1.0)]
)
def test_translations_are_equal(ending_pair, beams, alpha):
    """The n best outputs of every sentence, and their scores."""
    model, params, reference = ending_pair
    src = sources(60, seed=2)
    how, beams = (dict(method="greedy"), 1) if beams == "greedy" else (dict(beam_size=beams), beams)
    options = SearchOptions(penalty="average", alpha=alpha, n_best=beams, **how)
    result = jax.jit(
        lambda src: search(
            [make_generator(model.config)],
            [pack(model.config, params)],
            search_batch(src, LIMIT),
            options=options,
            max_length=LIMIT,
        )
    )(jnp.asarray(src))
    with torch.no_grad():
        output = reference.generate(
            torch.from_numpy(src).long(),
            attention_mask=torch.from_numpy(src != PAD).long(),
            num_beams=beams,
            num_return_sequences=beams,
            length_penalty=alpha,
            early_stopping=beams > 1,
            max_new_tokens=LIMIT,
            suppress_tokens=[PAD, BOS, UNK],
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
    sequences = output.sequences[:, 1:].reshape(60, beams, -1).tolist()
    # At the limit Marian truncates and Heed ends with EOS.
    ended = np.flatnonzero((result.lengths < LIMIT).all(1))
    for b in ended:
        for row, length, expected in zip(
            result.tokens[b], result.lengths[b], sequences[b], strict=True
        ):
            assert row[:length].tolist() == expected[:length]
            assert set(expected[length:]) <= {PAD, EOS}
    if beams > 1:  # greedy search has no scores
        scores = output.sequences_scores.reshape(60, beams)[ended]
        np.testing.assert_allclose(result.scores[ended], scores, rtol=1e-5)
    assert len(ended) >= 58 and len(set(result.lengths[ended, 0].tolist())) >= 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["W2", "W4"])
def test_the_benchmark_decodes_to_the_lengths_of_the_workload(name, monkeypatch):
    lengths = []

    def recorded(*args):
        model = marian(*args)
        generate = model.generate

        def generate_and_record(*inputs, **options):
            outputs = generate(*inputs, **options)
            lengths.append(outputs.shape[1] - 1)  # without the start token
            return outputs

        model.generate = generate_and_record
        return model

    monkeypatch.setattr(transformers_system, "marian", recorded)
    config = TransformerConfig(
        vocab_size=V, d_model=D, d_ff=F, num_heads=H, encoder_layers=1, decoder_layers=1
    )
    work = workload(name, config)
    work = replace(work, sources=work.sources[:5], lengths=work.lengths[:5])
    run, _ = transformers_system.make(config, work, "bfloat16", 1, 0)
    run()
    groups = work.groups(transformers_system.BATCH)
    assert lengths and lengths == [work.lengths[group[0]] for group in groups]
