"""Required phrases against enumeration, and against dynamic beam allocation in plain loops."""

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
from tests.decode.toy_language import EOS, enough, every_output, language, plain_beam, run, wu

VOCAB, LENGTH = 4, 5
LOG_PROB, STEP = language(11, 3, VOCAB, LENGTH)
HASTY, PATIENT = when_full(), at_limit()


@functools.partial(jax.jit, static_argnames=("width", "banned", "stopping"))
def search(wanted, limits, *, width, banned, stopping):
    cache, start = jnp.zeros((3, width), jnp.int32), jnp.ones(3, jnp.int32)
    how = options(wanted, limits, width, banned=banned, stopping=stopping)
    return beam_search(STEP, cache, start, limits, **how)


def options(wanted, limits, width, banned=(), stopping=HASTY):
    return dict(
        eos=EOS,
        beam_size=width,
        max_length=LENGTH,
        length_norm=gnmt(0.6),
        stopping=stopping,
        transform=enforce(wanted, limits, EOS, transforms.ban_phrases(banned)),
        select_candidates=dynamic_beam_allocation(wanted, width),
    )


def phrases_of(phrases):
    """Each sentence's own lists of ids."""
    tokens = np.full((3, 2, 3), 3, np.int32)  # what fills up is an id as well
    sizes = np.zeros((3, 2), np.int32)
    for b, each in enumerate(phrases):
        for p, phrase in enumerate(each):
            tokens[b, p, : len(phrase)], sizes[b, p] = phrase, len(phrase)
    return LexicalConstraints(jnp.asarray(tokens), jnp.asarray(sizes))


def find(phrases, limits, width, banned=(), stopping=HASTY):
    wanted, limits = phrases_of(phrases), jnp.array(limits, jnp.int32)
    found = search(wanted, limits, width=width, banned=banned, stopping=stopping)
    return jax.tree.map(np.asarray, found)


def holds(tokens, phrases):
    return all(
        any(tuple(tokens[i : i + len(p)]) == tuple(p) for i in range(len(tokens))) for p in phrases
    )


def outputs(found, b):
    return [
        (float(score), tuple(row[:size].tolist()))
        for row, size, score in zip(found.tokens[b], found.lengths[b], found.scores[b], strict=True)
        if np.isfinite(score)
    ]


def test_a_beam_of_every_prefix_finds_all_outputs_that_hold_the_phrases():
    phrases, limits = [[(1, 2), (3, 3)], [], [(3,), (1, 2, 1)]], [5, 3, 5]
    found = find(phrases, limits, 128)  # there are 121 outputs
    for b in range(3):
        everything = every_output(LOG_PROB, b, VOCAB, limits[b], wu(0.6))
        expected = [(score, tokens) for score, tokens in everything if holds(tokens, phrases[b])]
        ours = outputs(found, b)
        assert [tokens for _, tokens in ours] == [tokens for _, tokens in expected]
        np.testing.assert_allclose([s for s, _ in ours], [s for s, _ in expected], rtol=1e-5)


def dealt(b, phrases, limit, width):
    """Dynamic beam allocation by loops over hypotheses: the pool, best first."""

    def lacking(tokens):
        missing = [p for p in phrases if not holds(tokens, [p])]
        begun = [n for p in missing for n in range(len(p)) if n and tokens[-n:] == p[:n]]
        return sum(map(len, missing)) - max(begun, default=0)

    def banked(candidates):
        banks = {}
        for score, tokens in sorted(candidates, key=lambda c: -c[0]):
            banks.setdefault(lacking(tokens), []).append((score, tokens))
        rounds = max(map(len, banks.values()), default=0)
        return [banks[n][i] for i in range(rounds) for n in sorted(banks) if i < len(banks[n])]

    def offered(live, n):
        candidates = []
        for total, prefix in live:
            row = LOG_PROB(b, prefix)
            best = np.argsort(-row, kind="stable")[: 2 * width].tolist()
            tokens = dict.fromkeys([*best, *(t for p in phrases for t in p)])
            for t in tokens if n < limit else [EOS]:
                if lacking((*prefix, t)) <= (0 if t == EOS else limit - n - 1):
                    candidates.append((total + row[t], (*prefix, t)))
        return banked(candidates)

    return plain_beam(offered, limit, width, wu(0.6), enough(width))[0]


TOKEN = st.integers(1, VOCAB - 1)
PHRASES = st.lists(
    st.lists(st.lists(TOKEN, min_size=1, max_size=2).map(tuple), max_size=2, unique=True),
    min_size=3,
    max_size=3,
).filter(any)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(phrases=PHRASES, width=st.sampled_from([1, 2, 4]), tight=st.booleans())
def test_slots_are_dealt_as_loops_deal_them_and_every_phrase_is_there(phrases, width, tight):
    sizes = [sum(map(len, each)) for each in phrases]
    limits = [size + 1 if tight else LENGTH for size in sizes]
    found = find(phrases, limits, width)
    for b in range(3):
        ours, expected = outputs(found, b), dealt(b, phrases[b], limits[b], width)
        assert ours and all(holds(tokens, phrases[b]) for _, tokens in ours)
        assert [tokens for _, tokens in ours] == [tokens for _, tokens in expected]
        np.testing.assert_allclose([s for s, _ in ours], [s for s, _ in expected], rtol=1e-5)


def test_who_watches_sees_the_likeliest_whatever_bank_it_is_in():
    seen, others = [], 0
    wanted, limits = phrases_of([[(1, 2)], [(3, 3)], []]), jnp.array([5, 5, 5], jnp.int32)
    on_token = lambda tokens, length, on: seen.append(np.asarray(tokens))  # noqa: E731
    how = dict(reorder=preallocated(LENGTH).reorder, on_token=on_token) | options(wanted, limits, 4)
    found = beam_searcher(STEP, jnp.ones(3, jnp.int32), limits, **how)
    state = found.init(jnp.zeros((3, 4), jnp.int32))
    for _ in range(LENGTH - 1):
        state = found.step(state)
        best = np.asarray(state.live.scores).argmax(1)
        others += best.any()
        np.testing.assert_array_equal(seen[-1], np.asarray(state.live.tokens)[np.arange(3), best])
    assert others  # or the test could not fail


def test_a_sentence_that_requires_nothing_is_searched_for_as_ever():
    found = find([[(1, 2)], [], []], [5, 5, 4], 2, stopping=PATIENT)
    plain = run(STEP, 3, 2, 0.6, [5, 5, 4], LENGTH, stopping=PATIENT)
    for ours, theirs in zip(found, plain, strict=True):
        np.testing.assert_array_equal(ours[1:], theirs[1:])


def test_what_is_required_comes_before_what_is_steered_once_room_is_short():
    phrases, limits = [[(1, 2)], [(3,)], [(2, 2)]], [5, 5, 3]
    found = find(phrases, limits, 3, banned=((2,),))
    for b in range(3):
        ours = outputs(found, b)
        assert ours and all(holds(tokens, phrases[b]) for _, tokens in ours)
    assert not any(2 in tokens for _, tokens in outputs(found, 1))


def test_candidates_of_wide_beams_are_not_compared_one_by_one():
    """Their memory grows as they do, with the square of the width."""

    def memory(width):
        wanted = LexicalConstraints(jnp.ones((8, 2, 4), jnp.int32), jnp.full((8, 2), 4, jnp.int32))
        scores, log_probs = jnp.zeros((8, width)), jnp.zeros((8, width, 200))
        tokens = jnp.zeros((8, width, 16), jnp.int32)
        select_candidates = jax.jit(dynamic_beam_allocation(wanted, width))
        program = select_candidates.lower(scores, log_probs, tokens, jnp.int32(3)).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert memory(64) < 30 * memory(16)
