"""Lexical constraints compared with enumeration and with dynamic beam allocation in loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decode import transforms
from decode.beam import beam_search, beam_searcher
from decode.length_normalization import gnmt
from decode.lexical_constraints import LexicalConstraints, dynamic_beam_allocation, enforce
from decode.loop import preallocated
from decode.stopping import at_limit, when_full
from tests.decode.toy_language import (
    EOS,
    all_outputs,
    gnmt_score,
    language,
    plain_beam,
    run,
    stop_after,
)

VOCAB, LENGTH = 4, 5
LOG_PROB, STEP = language(11, 3, VOCAB, LENGTH)
WHEN_FULL, AT_LIMIT = when_full(), at_limit()


@functools.partial(jax.jit, static_argnames=("width", "banned", "stopping"))
def search(constraints, limits, *, width, banned, stopping):
    cache, start = jnp.zeros((3, width), jnp.int32), jnp.ones(3, jnp.int32)
    arguments = options(constraints, limits, width, banned=banned, stopping=stopping)
    return beam_search(STEP, cache, start, limits, **arguments)


def options(constraints, limits, width, banned=(), stopping=WHEN_FULL):
    return dict(
        eos=EOS,
        beam_size=width,
        max_length=LENGTH,
        length_norm=gnmt(0.6),
        stopping=stopping,
        transform=enforce(constraints, limits, EOS, transforms.ban_phrases(banned)),
        select_candidates=dynamic_beam_allocation(constraints, width),
    )


def phrases_of(phrases):
    """Constraints from each sentence's phrases of ids."""
    tokens = np.full((3, 2, 3), 3, np.int32)  # the padding is a valid id
    sizes = np.zeros((3, 2), np.int32)
    for b, phrases_of_sentence in enumerate(phrases):
        for p, phrase in enumerate(phrases_of_sentence):
            tokens[b, p, : len(phrase)], sizes[b, p] = phrase, len(phrase)
    return LexicalConstraints(jnp.asarray(tokens), jnp.asarray(sizes))


def run_search(phrases, limits, width, banned=(), stopping=WHEN_FULL):
    constraints, limits = phrases_of(phrases), jnp.array(limits, jnp.int32)
    result = search(constraints, limits, width=width, banned=banned, stopping=stopping)
    return jax.tree.map(np.asarray, result)


def contains_all(tokens, phrases):
    return all(
        any(tuple(tokens[i : i + len(p)]) == tuple(p) for i in range(len(tokens))) for p in phrases
    )


def outputs(result, b):
    return [
        (float(score), tuple(row[:size].tolist()))
        for row, size, score in zip(
            result.tokens[b], result.lengths[b], result.scores[b], strict=True
        )
        if np.isfinite(score)
    ]


def test_a_wide_beam_finds_all_outputs_with_the_phrases():
    phrases, limits = [[(1, 2), (3, 3)], [], [(3,), (1, 2, 1)]], [5, 3, 5]
    result = run_search(phrases, limits, 128)  # of 121 outputs
    for b in range(3):
        all_scored = all_outputs(LOG_PROB, b, VOCAB, limits[b], gnmt_score(0.6))
        expected = [
            (score, tokens) for score, tokens in all_scored if contains_all(tokens, phrases[b])
        ]
        actual = outputs(result, b)
        assert [tokens for _, tokens in actual] == [tokens for _, tokens in expected]
        np.testing.assert_allclose([s for s, _ in actual], [s for s, _ in expected], rtol=1e-5)


def plain_allocation(b, phrases, limit, width):
    """Dynamic beam allocation by loops over hypotheses: finished hypotheses, best first."""

    def num_missing(tokens):
        missing = [p for p in phrases if not contains_all(tokens, [p])]
        started = [n for p in missing for n in range(len(p)) if n and tokens[-n:] == p[:n]]
        return sum(map(len, missing)) - max(started, default=0)

    def interleave_banks(candidates):
        banks = {}
        for score, tokens in sorted(candidates, key=lambda c: -c[0]):
            banks.setdefault(num_missing(tokens), []).append((score, tokens))
        rounds = max(map(len, banks.values()), default=0)
        return [banks[n][i] for i in range(rounds) for n in sorted(banks) if i < len(banks[n])]

    def candidates_of(live, n):
        candidates = []
        for total, prefix in live:
            row = LOG_PROB(b, prefix)
            top_tokens = np.argsort(-row, kind="stable")[: 2 * width].tolist()
            tokens = dict.fromkeys([*top_tokens, *(t for p in phrases for t in p)])
            for t in tokens if n < limit else [EOS]:
                if num_missing((*prefix, t)) <= (0 if t == EOS else limit - n - 1):
                    candidates.append((total + row[t], (*prefix, t)))
        return interleave_banks(candidates)

    return plain_beam(candidates_of, limit, width, gnmt_score(0.6), stop_after(width))[0]


TOKEN = st.integers(1, VOCAB - 1)
PHRASES = st.lists(
    st.lists(st.lists(TOKEN, min_size=1, max_size=2).map(tuple), max_size=2, unique=True),
    min_size=3,
    max_size=3,
).filter(any)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(phrases=PHRASES, width=st.sampled_from([1, 2, 4]), tight=st.booleans())
def test_beam_allocation_equals_plain_loops_and_outputs_have_all_phrases(phrases, width, tight):
    sizes = [sum(map(len, sentence_phrases)) for sentence_phrases in phrases]
    limits = [size + 1 if tight else LENGTH for size in sizes]
    result = run_search(phrases, limits, width)
    for b in range(3):
        actual, expected = outputs(result, b), plain_allocation(b, phrases[b], limits[b], width)
        assert actual and all(contains_all(tokens, phrases[b]) for _, tokens in actual)
        assert [tokens for _, tokens in actual] == [tokens for _, tokens in expected]
        np.testing.assert_allclose([s for s, _ in actual], [s for s, _ in expected], rtol=1e-5)


def test_streaming_reports_the_best_hypothesis_of_all_banks():
    streamed, num_other_beams = [], 0
    constraints, limits = phrases_of([[(1, 2)], [(3, 3)], []]), jnp.array([5, 5, 5], jnp.int32)
    on_token = lambda tokens, length, done: streamed.append(np.asarray(tokens))  # noqa: E731
    arguments = dict(reorder=preallocated(LENGTH).reorder, on_token=on_token) | options(
        constraints, limits, 4
    )
    searcher = beam_searcher(STEP, jnp.ones(3, jnp.int32), limits, **arguments)
    state = searcher.init(jnp.zeros((3, 4), jnp.int32))
    for _ in range(LENGTH - 1):
        state = searcher.step(state)
        best = np.asarray(state.live.scores).argmax(1)
        num_other_beams += best.any()
        np.testing.assert_array_equal(
            streamed[-1], np.asarray(state.live.tokens)[np.arange(3), best]
        )
    assert num_other_beams  # guards against a vacuous test


def test_sentences_without_phrases_are_searched_as_usual():
    result = run_search([[(1, 2)], [], []], [5, 5, 4], 2, stopping=AT_LIMIT)
    unconstrained = run(STEP, 3, 2, 0.6, [5, 5, 4], LENGTH, stopping=AT_LIMIT)
    for actual, expected in zip(result, unconstrained, strict=True):
        np.testing.assert_array_equal(actual[1:], expected[1:])


def test_required_phrases_override_banned_ones_near_the_length_limit():
    phrases, limits = [[(1, 2)], [(3,)], [(2, 2)]], [5, 5, 3]
    result = run_search(phrases, limits, 3, banned=((2,),))
    for b in range(3):
        actual = outputs(result, b)
        assert actual and all(contains_all(tokens, phrases[b]) for _, tokens in actual)
    assert not any(2 in tokens for _, tokens in outputs(result, 1))


def test_memory_of_beam_allocation_is_quadratic_in_the_width():
    """Memory grows quadratically with the width, like the number of candidates."""

    def memory(width):
        constraints = LexicalConstraints(
            jnp.ones((8, 2, 4), jnp.int32), jnp.full((8, 2), 4, jnp.int32)
        )
        scores, log_probs = jnp.zeros((8, width)), jnp.zeros((8, width, 200))
        tokens = jnp.zeros((8, width, 16), jnp.int32)
        select_candidates = jax.jit(dynamic_beam_allocation(constraints, width))
        program = select_candidates.lower(scores, log_probs, tokens, jnp.int32(3)).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert memory(64) < 30 * memory(16)
