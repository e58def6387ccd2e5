"""Every search option, compared with a plain search over the training model."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import BOS, EOS, PAD, UNK, pad_rows
from decode import transforms as T
from decode.beam import beam_search
from decode.diverse import diverse_beam_search
from decode.families import make_generator
from decode.length_normalization import average, gnmt
from decode.mbr import expected_utilities
from decode.options import SearchOptions
from decode.sample import greedy, sample, sampled
from decode.search import reference_step, search
from decode.stopping import at_limit, when_full, when_unbeatable
from decode.token_constraints import TokenConstraints
from decode.weights import pack
from model import Transformer, init_cache
from tests.decode.tiny_model import (
    CONFIG,
    assert_same,
    parameters,
    search_batch,
    sentences,
    translator,
)


def test_width_one_is_greedy(params, vocabulary):
    text = sentences(6)
    assert_same(
        translator(params, vocabulary, beam_size=1).hypotheses(text),
        translator(params, vocabulary, method="greedy").hypotheses(text),
    )


def test_greedy_search_equals_a_loop_over_the_model(params):
    src = jnp.array([[5, 6, 7, EOS], [8, EOS, 0, 0]], jnp.int32)
    limits = [7, 5]
    options = SearchOptions(method="greedy")
    search_fn = partial(search, [make_generator(CONFIG)], options=options, max_length=8)
    result = jax.jit(search_fn)([pack(CONFIG, params)], search_batch(src, limits))
    apply = jax.jit(Transformer(CONFIG).apply)
    for b in range(2):
        output = [BOS]
        while output[-1] != EOS:
            args = src[b : b + 1], pad_rows([output], 1, 8)
            logits = np.array(apply({"params": params}, *args)[0, len(output) - 1])
            logits[[0, BOS, UNK]] = -np.inf
            output.append(int(logits.argmax()) if len(output) < limits[b] else EOS)
        assert result.tokens[b, 0, : result.lengths[b, 0]].tolist() == output[1:]


BANNED = ((70,), (245, 245))
# Options, and the equivalent transforms and arguments of the plain search. alpha=3 favors long
# outputs, so that the stopping rules differ.
LONG_OUTPUTS = dict(alpha=3.0), dict(length_norm=gnmt(3.0))
BEAMS = {
    "wide": (dict(beam_size=9, n_best=9), (), {}),
    "full": (LONG_OUTPUTS[0], (), LONG_OUTPUTS[1]),
    "unbeatable": (
        LONG_OUTPUTS[0] | dict(stopping="unbeatable"),
        (),
        LONG_OUTPUTS[1] | dict(stopping=when_unbeatable()),
    ),
    "limit": (
        LONG_OUTPUTS[0] | dict(stopping="limit"),
        (),
        LONG_OUTPUTS[1] | dict(stopping=at_limit()),
    ),
    "patience": (
        LONG_OUTPUTS[0] | dict(patience=3.0),
        (),
        LONG_OUTPUTS[1] | dict(stopping=when_full(3.0)),
    ),
    "average": (dict(penalty="average", alpha=1.5), (), dict(length_norm=average(1.5))),
    "none": (dict(penalty="none"), (), dict(length_norm=gnmt(0.0))),
    "groups": (
        dict(num_groups=2, diversity_penalty=3.0),
        (),
        dict(num_groups=2, diversity_penalty=3.0),
    ),
    "repetition": (dict(repetition_penalty=3.0), [T.repetition_penalty(3.0)], {}),
    "ban": (dict(banned=BANNED), [T.ban_phrases(BANNED)], {}),
    "ngrams": (dict(no_repeat_ngrams=1), [T.no_repeat_ngrams(1)], {}),
    "min_length": (dict(min_length=9), (), dict(min_length=9)),
    "all": (
        dict(repetition_penalty=2.0, banned=BANNED, no_repeat_ngrams=2, min_length=3),
        [T.repetition_penalty(2.0), T.ban_phrases(BANNED), T.no_repeat_ngrams(2)],
        dict(min_length=3),
    ),
}
SAMPLES = {
    "seed": (dict(seed=7), ()),
    "temperature": (dict(temperature=0.5), [T.temperature(0.5)]),
    "top_k": (dict(top_k=3), [T.top_k(3)]),
    "top_p": (dict(top_p=0.5), [T.top_p(0.5)]),
    "min_p": (dict(min_p=0.5), [T.min_p(0.5)]),
    "all": (
        dict(repetition_penalty=2.0, temperature=1.5, top_k=9, top_p=0.8, min_p=0.05),
        [T.repetition_penalty(2.0), T.temperature(1.5), T.top_k(9), T.top_p(0.8), T.min_p(0.05)],
    ),
}
DEFAULTS = dict(stopping=when_full(), length_norm=gnmt(0.6))
SRC = jnp.array([[5, 6, 7, EOS], [280, EOS, 0, 0], [9, 290, 291, EOS]], jnp.int32)
LIMITS = jnp.array([12, 9, 12], jnp.int32)


@pytest.fixture(scope="module")
def high_entropy_params():
    """Parameters with high entropy and a likely EOS at every step, so that every option matters."""
    params = parameters(CONFIG, 1.0)
    end = params["embedding"]["table"][EOS]
    params["decoder_1"]["feed_forward_residual"]["norm"]["bias"] += 6 * end / (end @ end)
    return params


@pytest.fixture(scope="module")
def default_search(high_entropy_params):
    """A cached `run_search`, for the searches that several tests compare theirs with."""
    return cache(partial(run_search, high_entropy_params))


@pytest.fixture(scope="module")
def plain_search(high_entropy_params):
    """`run_plain_search` with the source's keys and values computed once."""
    return partial(run_plain_search, high_entropy_params, cross_kv(high_entropy_params))


def run_search(params, config=CONFIG, **options):
    search_fn = partial(
        search, [make_generator(config)], options=SearchOptions(**options), max_length=12
    )
    return jax.jit(search_fn)([pack(config, params)], search_batch(SRC, LIMITS))


def cross_kv(params, config=CONFIG):
    apply = partial(
        jax.jit(Transformer(config).apply, static_argnames="method"), {"params": params}
    )
    return apply(apply(SRC, method="encode"), method="cross_kv")


def run_plain_search(params, cross, search_fn, width, chain=(), config=CONFIG, **arguments):
    """The same search with the training model's step and a full-length cache."""
    model = Transformer(config)
    transform = T.chain(*chain) if chain else None
    step = reference_step(
        model, params, cross, SRC != PAD, TokenConstraints(arguments.pop("min_length", 1))
    )
    run = partial(search_fn, step, transform=transform)
    arguments = dict(eos=EOS, max_length=12) | arguments
    arguments |= {"width": width} if search_fn is sample else {"beam_size": width}
    cache = init_cache(config, (3, width), 12)
    return jax.jit(lambda cache: run(cache, jnp.full(3, BOS, jnp.int32), LIMITS, **arguments))(
        cache
    )


def assert_equal(left, right):
    np.testing.assert_allclose(left.scores, right.scores, rtol=1e-4, atol=1e-4)
    finite = np.isfinite(right.scores)
    assert finite.any()
    np.testing.assert_array_equal(left.tokens[finite], right.tokens[finite])
    np.testing.assert_array_equal(left.lengths[finite], right.lengths[finite])


@pytest.mark.parametrize("name", BEAMS)
def test_beam_search_options_equal_the_plain_search(
    high_entropy_params, default_search, plain_search, name
):
    options, chain, arguments = BEAMS[name]
    width = options.get("beam_size", 4)
    search_fn = diverse_beam_search if "num_groups" in arguments else beam_search
    result = run_search(high_entropy_params, **options)
    assert_equal(result, plain_search(search_fn, width, chain, **DEFAULTS | arguments))
    if name not in ("full", "wide"):  # the option has an effect
        default = default_search(alpha=options.get("alpha", 0.6))
        assert not np.allclose(result.scores, default.scores, atol=1e-3)


def test_a_large_vocabulary_equals_the_plain_search():
    """A vocabulary of many blocks, as in real models; the other tests have few."""
    config = replace(CONFIG, vocab_size=2300)
    params = parameters(config, 1.5)
    cross = cross_kv(params, config)
    assert_equal(
        run_search(params, config),
        run_plain_search(params, cross, beam_search, 4, config=config, **DEFAULTS),
    )


TAILS = {
    "greedy": dict(method="greedy", min_length=2),
    "beam": dict(coverage=0.2, stopping="limit", alpha=3.0),
    "groups": dict(num_groups=2, diversity_penalty=3.0, stopping="limit", min_length=2),
    "sample": dict(method="sample", num_samples=3, n_best=3, top_p=0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TAILS)
def test_compacting_the_last_sentences_preserves_outputs(high_entropy_params, name, monkeypatch):
    src = jax.random.randint(jax.random.key(0), (9, 4), UNK + 1, 300, jnp.int32)
    args = (
        [pack(CONFIG, high_entropy_params)],
        search_batch(src.at[:, 3].set(EOS), [2, 12, 3, 2, 3, 3, 2, 12, 2]),
    )

    def run_with_tail(tail, *early_stages):
        monkeypatch.setattr("decode.search._TAIL", tail)
        monkeypatch.setattr("decode.search.cache_stages", lambda length: (*early_stages, length))
        search_fn = partial(
            search, [make_generator(CONFIG)], options=SearchOptions(**TAILS[name]), max_length=12
        )
        return jax.jit(search_fn)(*args)

    # Compaction may start in an early cache stage and end in the last.
    full, compacted = run_with_tail(99), run_with_tail(4, 4, 8)
    assert full.lengths.max() > 5 and full.lengths[0].max() == 2
    np.testing.assert_array_equal(compacted.tokens, full.tokens)
    np.testing.assert_array_equal(compacted.lengths, full.lengths)
    for actual, expected in ((compacted.scores, full.scores), (compacted[3], full[3])):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_sampling_options_equal_the_plain_search(
    high_entropy_params, default_search, plain_search, name
):
    options, chain = SAMPLES[name]
    key = jax.random.key(options.get("seed", 0))
    keys = jax.vmap(partial(jax.random.fold_in, key))(search_batch(SRC, LIMITS).seeds)
    result = run_search(high_entropy_params, method="sample", num_samples=3, n_best=3, **options)
    arguments = dict(select_token=sampled(keys), length_norm=gnmt(0.6))
    assert_equal(result, plain_search(sample, 3, chain, **arguments))
    default = default_search(method="sample", num_samples=3, n_best=3)
    assert (result.tokens != default.tokens).any()
    if name == "top_k":
        expected = plain_search(sample, 1, select_token=greedy, length_norm=gnmt(0.6))
        assert_equal(run_search(high_entropy_params, method="sample", top_k=1), expected)


def test_options_limit_the_output_length():
    limit = lambda source, longest=None, **options: SearchOptions(**options).limit(source, longest)  # noqa: E731
    assert limit(7) == 57 and limit(7, max_length_offset=3) == 10 and limit(7, longest=20) == 20
    assert limit(7, max_length=5) == 5 and limit(7, max_ratio=1.0) == 8  # EOS counts
    assert limit(99, max_ratio=0.29) == 29  # despite floating-point rounding
    assert limit(7, max_ratio=0.5) == 4 and limit(1, max_ratio=0.1) == 1


def test_samples_keep_their_order_and_mbr_ranks_by_utility(params, vocabulary):
    text, model = sentences(5), parameters(CONFIG, 1.5)
    sample_texts = lambda n, **o: translator(model, vocabulary, num_samples=n, **o).hypotheses(text)  # noqa: E731
    six, two = (sample_texts(n, method="sample", n_best=n) for n in (6, 2))
    assert_same([samples[:2] for samples in six], two)  # more samples do not change the first ones
    assert any(first.score < second.score for first, second, *_ in six)
    reseeded = sample_texts(2, method="sample", n_best=2, seed=1)
    assert [h.tokens for h, _ in reseeded] != [h.tokens for h, _ in two]
    for utility in "chrf", "bleu":
        reranked = sample_texts(6, method="mbr", n_best=6, utility=utility)
        for ranked, samples in zip(reranked, six, strict=True):
            texts = [h.text for h in samples]
            utilities = dict(zip(texts, expected_utilities(texts, utility).tolist(), strict=True))
            assert ranked[0].text == max(texts, key=utilities.get)
            assert [h.utility for h in ranked] == sorted(utilities.values(), reverse=True)
            assert {h.text: h.utility for h in ranked} == utilities  # each text once


def test_special_tokens_are_never_selected(params):
    model, src = Transformer(CONFIG), jnp.array([[5, 6, EOS]], jnp.int32)
    apply = partial(jax.jit(model.apply, static_argnames="method"), {"params": params})
    cross = apply(apply(src, method="encode"), method="cross_kv")
    step = jax.jit(reference_step(model, params, cross, src != PAD))
    next_token, _ = step(jnp.full((1, 2), BOS), init_cache(CONFIG, (1, 2), 4), jnp.int32(0))
    actual = next_token.logits - next_token.log_normalizer[..., None]
    expected = jax.nn.log_softmax(apply(src, jnp.full((1, 1), BOS)))[0, 0]
    assert np.flatnonzero(np.isneginf(actual[0, 0])).tolist() == [PAD, BOS, UNK]
    allowed = [i for i in range(300) if i not in (PAD, BOS, UNK)]
    np.testing.assert_allclose(
        actual[0, 1, jnp.array(allowed)], expected[jnp.array(allowed)], atol=1e-4
    )
