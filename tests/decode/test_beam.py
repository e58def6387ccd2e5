"""Beam and greedy search compared with enumeration of every output, on toy languages."""

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
    all_continuations,
    all_outputs,
    gnmt_score,
    language,
    plain_beam,
    run,
    stop_after,
    with_min_length,
)

# Stopping rule, and the finished hypotheses needed for widths 2 and 3; None: run to the limit.
RULES = {
    "full": (when_full(), (2, 3)),
    "patient": (when_full(2.0), (4, 6)),
    "hasty": (when_full(0.5), (1, 2)),
    "unbeatable": (when_unbeatable(), (None, None)),
    "limit": (at_limit(), (None, None)),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("rule", ["full", "limit"])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_for_every_prefix_is_exhaustive_search(penalty, rule, seed):
    batch, vocab, length = 2, 3, 4
    log_prob, step = language(seed, batch, vocab, length)
    limits = [4, 3]
    width = vocab**length
    length_norm, score_fn = PENALTIES[penalty]
    options = dict(length_norm=length_norm, stopping=RULES[rule][0])
    result = run(step, batch, width, 0, limits, length, **options)
    for b in range(batch):
        expected = all_outputs(log_prob, b, vocab, limits[b], score_fn)
        n = len(expected)
        np.testing.assert_allclose(result.scores[b, :n], [s for s, _ in expected], rtol=1e-5)
        assert np.isneginf(result.scores[b, n:]).all()
        for row, size, (_, tokens) in zip(
            result.tokens[b], result.lengths[b], expected, strict=False
        ):
            assert tuple(row[:size]) == tokens
            assert not row[size:].any()


@pytest.mark.parametrize("search", [beam_search, sample])
def test_output_lengths_are_within_their_limits(search):
    batch, vocab, length = 4, 3, 4
    log_prob, step = language(11, batch, vocab, length)
    limits = [4, 3, 2, 1]
    width = vocab**length if search is beam_search else 1
    result = run(with_min_length(step, 3), batch, width, 0.6, limits, length, search=search)
    for b, limit in enumerate(limits):
        lengths = [
            n for n, s in zip(result.lengths[b], result.scores[b], strict=True) if s > -np.inf
        ]
        assert lengths and all(min(3, limit) <= n <= limit for n in lengths)
        if search is beam_search:
            outputs = all_outputs(log_prob, b, vocab, limit, gnmt_score(0.6))
            expected = [s for s, tokens in outputs if len(tokens) >= min(3, limit)]
            np.testing.assert_allclose(result.scores[b, : len(expected)], expected, rtol=1e-5)
            assert len(lengths) == len(expected)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_width_one_is_greedy(alpha):
    batch, vocab, length = 8, 4, 4
    log_prob, step = language(7, batch, vocab, length, sharpness=2.0)
    limits = [1, 2, 3, 4, 4, 4, 4, 4]
    beam = run(step, batch, 1, alpha, limits, length)
    greedy = run(step, batch, 1, alpha, limits, length, search=sample)
    np.testing.assert_array_equal(beam.tokens, greedy.tokens)
    np.testing.assert_allclose(beam.scores, greedy.scores, rtol=1e-6)
    for b in range(batch):  # greedy search equals a plain loop
        prefix = ()
        while not prefix or prefix[-1] != EOS:
            token = int(log_prob(b, prefix).argmax()) if len(prefix) + 1 < limits[b] else EOS
            prefix = (*prefix, token)
        assert tuple(greedy.tokens[b, 0, : len(prefix)]) == prefix
        assert greedy.lengths[b, 0] == len(prefix)


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("penalty", ["none", "gnmt", "average"])
@pytest.mark.parametrize("rule", RULES)
def test_beam_search_equals_a_plain_python_beam_search(width, penalty, rule):
    """Equals a beam search written with Python lists: same outputs and scores for every beam."""
    batch, vocab, length = 6, 4, 4
    log_prob, step = language(11, batch, vocab, length)
    limits = [4, 4, 3, 2, 1, 4]
    (length_norm, score_fn), (stopping, num_finished) = PENALTIES[penalty], RULES[rule]
    result = run(step, batch, width, 0, limits, length, length_norm=length_norm, stopping=stopping)
    for b in range(batch):

        def candidates_of(live, n, b=b):
            return all_continuations(partial(log_prob, b), live, n == limits[b])

        expected, _ = plain_beam(
            candidates_of, limits[b], width, score_fn, stop_after(num_finished[width - 2])
        )
        assert len(expected) == np.isfinite(result.scores[b]).sum()
        for i, (score, tokens) in enumerate(expected):
            assert tuple(result.tokens[b, i, : result.lengths[b, i]]) == tokens
            np.testing.assert_allclose(result.scores[b, i], score, rtol=1e-5)


@pytest.mark.parametrize("search", [beam_search, sample])
def test_a_sentence_does_not_depend_on_its_batch(search):
    batch, vocab, length = 6, 4, 4
    _, step = language(3, batch, vocab, length, sharpness=2.0)
    width = 2 if search is beam_search else 1
    limits = np.array([4, 1, 3, 4, 2, 4])
    batched = run(step, batch, width, 0.6, limits, length, search=search)
    for b in range(batch):

        def step_of_sentence(tokens, cache, index, b=b):
            rows = jnp.broadcast_to(tokens, (batch, width)), jnp.broadcast_to(cache, (batch, width))
            return jax.tree.map(lambda leaf: leaf[b : b + 1], step(*rows, index))

        result = run(step_of_sentence, 1, width, 0.6, limits[b : b + 1], length, search=search)
        for actual, expected in zip(result, batched, strict=True):
            np.testing.assert_array_equal(actual[0], expected[b])


@pytest.mark.parametrize("stopping", [when_full(), when_unbeatable(), at_limit()])
def test_a_transform_steers_the_search_but_does_not_change_scores(stopping):
    batch, vocab, length = 4, 4, 4
    log_prob, step = language(7, batch, vocab, length)
    penalty = jnp.zeros(vocab).at[1].set(-0.7)[None, None]
    transform = lambda log_probs, tokens, index: log_probs + penalty  # noqa: E731
    options = dict(stopping=stopping, transform=transform)
    result = run(step, batch, 2, 0.6, [4] * batch, length, **options)
    plain = run(step, batch, 2, 0.6, [4] * batch, length, stopping=stopping)
    assert 0 < (result.tokens == 1).sum() < (plain.tokens == 1).sum()
    for b in range(batch):
        expected = {
            tokens: score for score, tokens in all_outputs(log_prob, b, vocab, 4, gnmt_score(0.6))
        }
        for row, size, score in zip(
            result.tokens[b], result.lengths[b], result.scores[b], strict=True
        ):
            np.testing.assert_allclose(score, expected[tuple(row[:size])], rtol=1e-5)


def test_top_continuations_equals_a_sort():
    candidates = np.random.default_rng(0).normal(size=(3, 4, 7)).astype(np.float32)
    beam_scores = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    scores, beams, tokens = top_continuations(jnp.asarray(beam_scores), jnp.asarray(candidates), 8)
    candidates += beam_scores[..., None]
    for b in range(3):
        order = np.argsort(-candidates[b].ravel())[:8]
        np.testing.assert_array_equal(beams[b], order // 7)
        np.testing.assert_array_equal(tokens[b], order % 7)
        np.testing.assert_array_equal(scores[b], candidates[b].ravel()[order])


def test_length_penalty_equals_wu_et_al_2016():
    for n in (1, 7, 40):
        assert np.isclose(length_penalty(n, 0.6), ((5 + n) / 6) ** 0.6)
        assert length_penalty(n, 0.0) == 1


@pytest.mark.parametrize("width", [1, 2, 4, 9])
def test_no_width_beats_exhaustive_search(width):
    batch, vocab, length = 3, 3, 4
    log_prob, step = language(5, batch, vocab, length)
    result = run(step, batch, width, 0.6, [4] * batch, length, stopping=at_limit())
    for b in range(batch):
        score_by_output = {t: s for s, t in all_outputs(log_prob, b, vocab, 4, gnmt_score(0.6))}
        assert result.scores[b, 0] <= max(score_by_output.values()) + 1e-5
        for w in range(width):
            if np.isfinite(result.scores[b, w]):
                tokens = tuple(result.tokens[b, w, : result.lengths[b, w]])
                np.testing.assert_allclose(result.scores[b, w], score_by_output[tokens], rtol=1e-5)
                log_probs, prefix = [], ()
                for token in tokens:
                    log_probs.append(log_prob(b, prefix)[token])
                    prefix = (*prefix, token)
                token_scores = result.token_scores[b, w, : len(tokens)]
                np.testing.assert_allclose(token_scores, log_probs, rtol=1e-5)
