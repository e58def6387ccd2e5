"""When a search has found enough, against enumeration and a plain search that stops late."""

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
    every_choice,
    language,
    plain_beam,
    run,
    wu,
)


# Where length costs (alpha below 0) a live one is best ended at once, else at its limit.
@pytest.mark.slow
@pytest.mark.parametrize("length_norm", [gnmt(0.6), gnmt(0.0), gnmt(-1.0), average(), average(0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_bounded_finds_what_never_finds_and_sooner_is_no_better(seed, length_norm):
    batch, vocab, length, width = 4, 4, 4, 2
    _, step = language(seed, batch, vocab, length)
    limits = [4, 4, 3, 2]
    options = dict(length_norm=length_norm)
    whole = run(step, batch, width, 0, limits, length, stopping=at_limit(), **options)
    bound = run(step, batch, width, 0, limits, length, stopping=when_unbeatable(), **options)
    for left, right in zip(whole, bound, strict=True):
        np.testing.assert_array_equal(left, right)
    scores = [whole.scores[:, 0]]
    assert when_full(1.1).capacity(10) == 11
    for patience in (2.0, 1.0, 0.5):
        found = run(step, batch, width, 0, limits, length, stopping=when_full(patience), **options)
        scores.append(found.scores[:, 0])
    for patient, hasty in itertools.pairwise(scores):
        assert (patient >= hasty - 1e-6).all()


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.6])
def test_bounded_stops_as_soon_as_no_live_one_can_enter(alpha):
    batch, vocab, length, width = 6, 4, 5, 2
    log_prob, step = language(3, batch, vocab, length, lean=1.0)
    limits, ops, worth, ends = [5, 5, 5, 5, 4, 4], loop.preallocated(length), wu(alpha), set()

    @jax.jit
    def steps(limits):
        options = dict(eos=EOS, beam_size=width, max_length=length, reorder=ops.reorder)
        options |= dict(length_norm=gnmt(alpha), stopping=when_unbeatable())
        search = beam_searcher(step, jnp.full(batch, 1, jnp.int32), limits, **options)
        return loop.run(search, jnp.zeros((batch, width), jnp.int32), ops).index

    for b, limit in enumerate(limits):

        def offered(live, n, b=b, limit=limit):
            return every_choice(partial(log_prob, b), live, n == limit)

        def over(pool, live, n, limit=limit):
            best = max(total for total, _ in live)
            ends = worth(best, n + 1), worth(best, limit)
            return len(pool) >= width and pool[width - 1][0] >= max(ends)

        _, end = plain_beam(offered, limit, width, worth, over)
        alone = np.ones(batch, np.int32)  # all others end at once
        alone[b] = limit
        assert steps(alone) == end
        ends.add(end - limit)
    assert len(ends) > 1 and min(ends) < -1


@pytest.mark.parametrize(
    ("stopping", "length"),
    [(when_full(), 1), (when_full(2.0), 4), (when_unbeatable(), 4), (at_limit(), 4)],
)
def test_waiting_finds_what_haste_does_not(stopping, length):
    """EOS is likely at first; who does not take it finds an output of a better mean."""

    def step(tokens, cache, index):
        start = jnp.log(jnp.array([0.6, 0.3, 0.1]))
        later = jnp.log(jnp.array([[1e-9, 1.0, 1e-9], [1.0, 1e-9, 1e-9]]))[index // 3]
        row = jnp.where(index == 0, start, later)
        row = jnp.broadcast_to(row, (1, 1, 3))
        return NextToken(row, jnp.zeros((1, 1)), row[..., EOS]), cache

    options = dict(stopping=stopping, length_norm=average())
    found = run(step, 1, 1, 0, [4], 4, **options)
    assert found.lengths[0, 0] == (1 if length == 1 else 4)


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("penalty", ["none", "average"])
def test_now_goes_on_while_a_live_output_would_be_among_the_best_if_it_ended(width, penalty):
    batch, vocab, length = 12, 4, 5
    log_prob, step = language(13, batch, vocab, length, sharpness=4.0)
    length_norm, worth = PENALTIES[penalty]
    found = run(
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

        def over(pool, live, n):
            best = max((worth(total, n) for total, _ in live), default=-np.inf)
            return len(pool) >= width and pool[width - 1][0] >= best

        def offered(live, n, b=b):
            return every_choice(partial(log_prob, b), live, end=n == length)

        pool, end = plain_beam(offered, length, width, worth, over)
        ends.append(end)
        for w, (score, tokens) in enumerate(pool):
            assert tuple(found.tokens[b, w, : len(tokens)]) == tokens
            np.testing.assert_allclose(found.scores[b, w], score, rtol=1e-5)
    assert len(set(ends)) > 1


def test_a_free_end_costs_nothing_at_the_limit_and_what_it_costs_before():
    batch, vocab, length, width = 4, 3, 3, 3**3
    log_prob, step = language(17, batch, vocab, length)
    never_free = run(step, batch, width, 0.0, [length] * batch, length, stopping=at_limit())
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
            {tuple(row[:n]): s for row, n, s in zip(*each, strict=True) if s > -np.inf}
            for each in ((f.tokens[b], f.lengths[b], f.scores[b]) for f in (never_free, free))
        ]
        assert scores[0].keys() == scores[1].keys()
        for tokens, score in scores[1].items():
            end = log_prob(b, tokens[:-1])[EOS] if len(tokens) == length else 0.0
            np.testing.assert_allclose(score, scores[0][tokens] - end, rtol=1e-4, atol=1e-5)
        assert np.isclose(free.token_scores[b].sum(-1), free.scores[b]).sum() >= len(scores[1])
