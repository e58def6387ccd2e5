"""Beam and greedy search against enumeration of every output, on tiny made-up languages."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decode.beam import beam_search, top_continuations
from decode.length_normalization import length_penalty
from decode.sample import sample
from decode.stopping import at_limit, when_full, when_unbeatable
from tests.decode.toy_language import (
    EOS,
    PENALTIES,
    enough,
    every_choice,
    every_output,
    language,
    no_shorter,
    plain_beam,
    run,
    wu,
)

# And how many must have ended, of W = 2 and 3; None: it goes on to the limit.
RULES = {
    "first": (when_full(), (2, 3)),
    "patient": (when_full(2.0), (4, 6)),
    "hasty": (when_full(0.5), (1, 2)),
    "bounded": (when_unbeatable(), (None, None)),
    "never": (at_limit(), (None, None)),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("rule", ["first", "never"])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_every_prefix_is_exhaustive_search(penalty, rule, seed):
    batch, vocab, length = 2, 3, 4
    log_prob, step = language(seed, batch, vocab, length)
    limits = [4, 3]
    width = vocab**length
    length_norm, worth = PENALTIES[penalty]
    how = dict(length_norm=length_norm, stopping=RULES[rule][0])
    found = run(step, batch, width, 0, limits, length, **how)
    for b in range(batch):
        expected = every_output(log_prob, b, vocab, limits[b], worth)
        n = len(expected)
        np.testing.assert_allclose(found.scores[b, :n], [s for s, _ in expected], rtol=1e-5)
        assert np.isneginf(found.scores[b, n:]).all()
        for row, size, (_, tokens) in zip(
            found.tokens[b], found.lengths[b], expected, strict=False
        ):
            assert tuple(row[:size]) == tokens
            assert not row[size:].any()


@pytest.mark.parametrize("search", [beam_search, sample])
def test_no_output_is_shorter_than_asked_nor_longer_than_its_limit(search):
    batch, vocab, length = 4, 3, 4
    log_prob, step = language(11, batch, vocab, length)
    limits = [4, 3, 2, 1]
    width = vocab**length if search is beam_search else 1
    found = run(no_shorter(step, 3), batch, width, 0.6, limits, length, search=search)
    for b, limit in enumerate(limits):
        lengths = [n for n, s in zip(found.lengths[b], found.scores[b], strict=True) if s > -np.inf]
        assert all(min(3, limit) <= n <= limit for n in lengths)
        if search is beam_search:
            outputs = every_output(log_prob, b, vocab, limit, wu(0.6))
            expected = [s for s, tokens in outputs if len(tokens) >= min(3, limit)]
            np.testing.assert_allclose(found.scores[b, : len(expected)], expected, rtol=1e-5)
            assert len(lengths) == len(expected)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_width_one_is_greedy(alpha):
    batch, vocab, length = 8, 4, 4
    log_prob, step = language(7, batch, vocab, length, sharpness=2.0)
    limits = [1, 2, 3, 4, 4, 4, 4, 4]
    narrow = run(step, batch, 1, alpha, limits, length)
    plain = run(step, batch, 1, alpha, limits, length, search=sample)
    np.testing.assert_array_equal(narrow.tokens, plain.tokens)
    np.testing.assert_allclose(narrow.scores, plain.scores, rtol=1e-6)
    for b in range(batch):  # and greedy is the plain loop
        prefix = ()
        while not prefix or prefix[-1] != EOS:
            best = int(log_prob(b, prefix).argmax()) if len(prefix) + 1 < limits[b] else EOS
            prefix = (*prefix, best)
        assert tuple(plain.tokens[b, 0, : len(prefix)]) == prefix
        assert plain.lengths[b, 0] == len(prefix)


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("penalty", ["none", "gnmt", "average"])
@pytest.mark.parametrize("rule", RULES)
def test_equals_a_plain_python_beam(width, penalty, rule):
    """The documented rules, written with lists: same outputs, same scores, for every beam."""
    batch, vocab, length = 6, 4, 4
    log_prob, step = language(11, batch, vocab, length)
    limits = [4, 4, 3, 2, 1, 4]
    (length_norm, worth), (stopping, needed) = PENALTIES[penalty], RULES[rule]
    found = run(step, batch, width, 0, limits, length, length_norm=length_norm, stopping=stopping)
    for b in range(batch):

        def offered(live, n, b=b):
            return every_choice(partial(log_prob, b), live, n == limits[b])

        pool, _ = plain_beam(offered, limits[b], width, worth, enough(needed[width - 2]))
        assert len(pool) == np.isfinite(found.scores[b]).sum()
        for i, (total, tokens) in enumerate(pool):
            assert tuple(found.tokens[b, i, : found.lengths[b, i]]) == tokens
            np.testing.assert_allclose(found.scores[b, i], total, rtol=1e-5)


@pytest.mark.parametrize("search", [beam_search, sample])
def test_a_sentence_does_not_depend_on_its_batch_mates(search):
    batch, vocab, length = 6, 4, 4
    _, step = language(3, batch, vocab, length, sharpness=2.0)
    width = 2 if search is beam_search else 1
    limits = np.array([4, 1, 3, 4, 2, 4])
    whole = run(step, batch, width, 0.6, limits, length, search=search)
    for b in range(batch):

        def alone(tokens, cache, index, b=b):
            rows = jnp.broadcast_to(tokens, (batch, width)), jnp.broadcast_to(cache, (batch, width))
            return jax.tree.map(lambda leaf: leaf[b : b + 1], step(*rows, index))

        one = run(alone, 1, width, 0.6, limits[b : b + 1], length, search=search)
        for single, many in zip(one, whole, strict=True):
            np.testing.assert_array_equal(single[0], many[b])


@pytest.mark.parametrize("stopping", [when_full(), when_unbeatable(), at_limit()])
def test_a_transform_steers_and_the_score_stays_the_language_s_own(stopping):
    batch, vocab, length = 4, 4, 4
    log_prob, step = language(7, batch, vocab, length)
    dear = jnp.zeros(vocab).at[1].set(-0.7)[None, None]
    steer = lambda log_probs, tokens, index: log_probs + dear  # noqa: E731
    options = dict(stopping=stopping, transform=steer)
    found = run(step, batch, 2, 0.6, [4] * batch, length, **options)
    plain = run(step, batch, 2, 0.6, [4] * batch, length, stopping=stopping)
    assert 0 < (found.tokens == 1).sum() < (plain.tokens == 1).sum()
    for b in range(batch):
        expected = {tokens: score for score, tokens in every_output(log_prob, b, vocab, 4, wu(0.6))}
        for row, size, score in zip(
            found.tokens[b], found.lengths[b], found.scores[b], strict=True
        ):
            np.testing.assert_allclose(score, expected[tuple(row[:size])], rtol=1e-5)


def test_best_continuations_is_a_sort():
    totals = np.random.default_rng(0).normal(size=(3, 4, 7)).astype(np.float32)
    sums = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    scores, beams, tokens = top_continuations(jnp.asarray(sums), jnp.asarray(totals), 8)
    totals += sums[..., None]
    for b in range(3):
        order = np.argsort(-totals[b].ravel())[:8]
        np.testing.assert_array_equal(beams[b], order // 7)
        np.testing.assert_array_equal(tokens[b], order % 7)
        np.testing.assert_array_equal(scores[b], totals[b].ravel()[order])


def test_length_penalty_is_wu_et_al_2016():
    for n in (1, 7, 40):
        assert np.isclose(length_penalty(n, 0.6), ((5 + n) / 6) ** 0.6)
        assert length_penalty(n, 0.0) == 1


@pytest.mark.parametrize("width", [1, 2, 4, 9])
def test_no_width_beats_exhaustive_search(width):
    batch, vocab, length = 3, 3, 4
    log_prob, step = language(5, batch, vocab, length)
    found = run(step, batch, width, 0.6, [4] * batch, length, stopping=at_limit())
    for b in range(batch):
        everything = {t: s for s, t in every_output(log_prob, b, vocab, 4, wu(0.6))}
        assert found.scores[b, 0] <= max(everything.values()) + 1e-5
        for w in range(width):
            if np.isfinite(found.scores[b, w]):
                tokens = tuple(found.tokens[b, w, : found.lengths[b, w]])
                np.testing.assert_allclose(found.scores[b, w], everything[tokens], rtol=1e-5)
                total, prefix = [], ()
                for token in tokens:
                    total.append(log_prob(b, prefix)[token])
                    prefix = (*prefix, token)
                ours = found.token_scores[b, w, : len(tokens)]
                np.testing.assert_allclose(ours, total, rtol=1e-5)
