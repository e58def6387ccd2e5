"""Stopping rules compared with a plain beam search."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decode import loop
from decode.beam import beam_searcher
from decode.length_normalization import average, gnmt
from decode.loop import NextToken
from decode.stopping import at_limit, when_full, when_unbeatable, when_unbeaten
from tests.decode.toy_language import (
    EOS,
    PENALTIES,
    all_continuations,
    gnmt_score,
    language,
    plain_beam,
    run,
)


# With alpha < 0 a live hypothesis scores best if it ends now, otherwise at its limit.
@pytest.mark.slow
@pytest.mark.parametrize("length_norm", [gnmt(0.6), gnmt(0.0), gnmt(-1.0), average(), average(0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_unbeatable_equals_limit_and_stopping_earlier_scores_no_better(seed, length_norm):
    batch, vocab, length, width = 4, 4, 4, 2
    _, step = language(seed, batch, vocab, length)
    limits = [4, 4, 3, 2]
    options = dict(length_norm=length_norm)
    at_limit_result = run(step, batch, width, 0, limits, length, stopping=at_limit(), **options)
    unbeatable_result = run(
        step, batch, width, 0, limits, length, stopping=when_unbeatable(), **options
    )
    for expected, actual in zip(at_limit_result, unbeatable_result, strict=True):
        np.testing.assert_array_equal(expected, actual)
    scores = [at_limit_result.scores[:, 0]]
    assert when_full(1.1).capacity(10) == 11
    for patience in (2.0, 1.0, 0.5):
        result = run(step, batch, width, 0, limits, length, stopping=when_full(patience), **options)
        scores.append(result.scores[:, 0])
    for later_scores, earlier_scores in itertools.pairwise(scores):
        assert (later_scores >= earlier_scores - 1e-6).all()


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.6])
def test_unbeatable_stops_once_no_live_hypothesis_can_win(alpha):
    batch, vocab, length, width = 6, 4, 5, 2
    log_prob, step = language(3, batch, vocab, length, eos_bias=1.0)
    limits, ops, score_fn, offsets = (
        [5, 5, 5, 5, 4, 4],
        loop.preallocated(length),
        gnmt_score(alpha),
        set(),
    )

    @jax.jit
    def steps(limits):
        options = dict(eos=EOS, beam_size=width, max_length=length, reorder=ops.reorder)
        options |= dict(length_norm=gnmt(alpha), stopping=when_unbeatable())
        search = beam_searcher(step, jnp.full(batch, 1, jnp.int32), limits, **options)
        return loop.run(search, jnp.zeros((batch, width), jnp.int32), ops).index

    for b, limit in enumerate(limits):

        def candidates_of(live, n, b=b, limit=limit):
            return all_continuations(partial(log_prob, b), live, n == limit)

        def is_done(finished, live, n, limit=limit):
            best_sum = max(total for total, _ in live)
            bounds = score_fn(best_sum, n + 1), score_fn(best_sum, limit)
            return len(finished) >= width and finished[width - 1][0] >= max(bounds)

        _, end = plain_beam(candidates_of, limit, width, score_fn, is_done)
        sentence_limits = np.ones(batch, np.int32)  # all others end at once
        sentence_limits[b] = limit
        assert steps(sentence_limits) == end
        offsets.add(end - limit)
    assert len(offsets) > 1 and min(offsets) < -1


@pytest.mark.parametrize(
    ("stopping", "length"),
    [(when_full(), 1), (when_full(2.0), 4), (when_unbeatable(), 4), (at_limit(), 4)],
)
def test_patience_finds_longer_outputs(stopping, length):
    """EOS is likely at first, but longer outputs have a better average score."""

    def step(tokens, cache, index):
        start = jnp.log(jnp.array([0.6, 0.3, 0.1]))
        later = jnp.log(jnp.array([[1e-9, 1.0, 1e-9], [1.0, 1e-9, 1e-9]]))[index // 3]
        row = jnp.where(index == 0, start, later)
        row = jnp.broadcast_to(row, (1, 1, 3))
        return NextToken(row, jnp.zeros((1, 1)), row[..., EOS]), cache

    options = dict(stopping=stopping, length_norm=average())
    result = run(step, 1, 1, 0, [4], 4, **options)
    assert result.lengths[0, 0] == (1 if length == 1 else 4)


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("penalty", ["none", "average"])
def test_unbeaten_stops_once_no_live_hypothesis_would_rank_if_it_ended(width, penalty):
    batch, vocab, length = 12, 4, 5
    log_prob, step = language(13, batch, vocab, length, sharpness=4.0)
    length_norm, score_fn = PENALTIES[penalty]
    result = run(
        step,
        batch,
        width,
        0,
        [length] * batch,
        length,
        length_norm=length_norm,
        stopping=when_unbeaten(),
    )
    ends = []
    for b in range(batch):

        def is_done(finished, live, n):
            best_score = max((score_fn(total, n) for total, _ in live), default=-np.inf)
            return len(finished) >= width and finished[width - 1][0] >= best_score

        def candidates_of(live, n, b=b):
            return all_continuations(partial(log_prob, b), live, end=n == length)

        finished, end = plain_beam(candidates_of, length, width, score_fn, is_done)
        ends.append(end)
        for w, (score, tokens) in enumerate(finished):
            assert tuple(result.tokens[b, w, : len(tokens)]) == tokens
            np.testing.assert_allclose(result.scores[b, w], score, rtol=1e-5)
    assert len(set(ends)) > 1


def test_free_eos_at_limit_removes_the_cost_of_eos_only_at_the_limit():
    batch, vocab, length, width = 4, 3, 3, 3**3
    log_prob, step = language(17, batch, vocab, length)
    default = run(step, batch, width, 0.0, [length] * batch, length, stopping=at_limit())
    free = run(
        step,
        batch,
        width,
        0.0,
        [length] * batch,
        length,
        stopping=at_limit(),
        free_eos_at_limit=True,
    )
    for b in range(batch):
        scores = [
            {tuple(row[:n]): s for row, n, s in zip(*arrays, strict=True) if s > -np.inf}
            for arrays in ((f.tokens[b], f.lengths[b], f.scores[b]) for f in (default, free))
        ]
        assert scores[0].keys() == scores[1].keys()
        for tokens, score in scores[1].items():
            eos_log_prob = log_prob(b, tokens[:-1])[EOS] if len(tokens) == length else 0.0
            np.testing.assert_allclose(
                score, scores[0][tokens] - eos_log_prob, rtol=1e-4, atol=1e-5
            )
        assert np.isclose(free.token_scores[b].sum(-1), free.scores[b]).sum() >= len(scores[1])
