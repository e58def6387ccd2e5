"""Beam and greedy search against enumeration of every output, on tiny made-up languages."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decode import loop
from decode.beam import beam, beam_search, best_continuations
from decode.loop import Next
from decode.sample import sample
from decode.scoring import average, gnmt, length_penalty
from decode.stopping import bounded, first, never, now
from tests.decode.language import (
    EOS,
    enough,
    every_choice,
    every_output,
    language,
    mean,
    no_shorter,
    plain_beam,
    run,
    wu,
)

PENALTIES = {
    "none": (gnmt(0.0), wu(0.0)),
    "gnmt": (gnmt(0.6), wu(0.6)),
    "long": (gnmt(1.5), wu(1.5)),
    "average": (average(), mean(1.0)),
    "root": (average(0.5), mean(0.5)),
}
# And how many must have ended, of W = 2 and 3; None: it goes on to the limit.
RULES = {
    "first": (first(), (2, 3)),
    "patient": (first(2.0), (4, 6)),
    "hasty": (first(0.5), (1, 2)),
    "bounded": (bounded(), (None, None)),
    "never": (never(), (None, None)),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("rule", ["first", "never"])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_every_prefix_is_exhaustive_search(penalty, rule, seed):
    batch, vocab, length = 2, 3, 4
    log_prob, step = language(seed, batch, vocab, length)
    limits = [4, 3]
    width = vocab**length
    normalise, worth = PENALTIES[penalty]
    how = dict(normalise=normalise, stopping=RULES[rule][0])
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
    (normalise, worth), (stopping, needed) = PENALTIES[penalty], RULES[rule]
    found = run(step, batch, width, 0, limits, length, normalise=normalise, stopping=stopping)
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


@pytest.mark.parametrize("stopping", [first(), bounded(), never()])
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
    scores, beams, tokens = best_continuations(jnp.asarray(sums), jnp.asarray(totals), 8)
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


# Where length costs (alpha below 0) a live one is best ended at once, else at its limit.
@pytest.mark.parametrize("normalise", [gnmt(0.6), gnmt(0.0), gnmt(-1.0), average(), average(0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_bounded_finds_what_never_finds_and_sooner_is_no_better(seed, normalise):
    batch, vocab, length, width = 4, 4, 4, 2
    _, step = language(seed, batch, vocab, length)
    limits = [4, 4, 3, 2]
    options = dict(normalise=normalise)
    whole = run(step, batch, width, 0, limits, length, stopping=never(), **options)
    bound = run(step, batch, width, 0, limits, length, stopping=bounded(), **options)
    for left, right in zip(whole, bound, strict=True):
        np.testing.assert_array_equal(left, right)
    scores = [whole.scores[:, 0]]
    assert first(1.1).pool(10) == 11
    for patience in (2.0, 1.0, 0.5):
        found = run(step, batch, width, 0, limits, length, stopping=first(patience), **options)
        scores.append(found.scores[:, 0])
    for patient, hasty in itertools.pairwise(scores):
        assert (patient >= hasty - 1e-6).all()


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.6])
def test_bounded_stops_as_soon_as_no_live_one_can_enter(alpha):
    batch, vocab, length, width = 6, 4, 5, 2
    log_prob, step = language(3, batch, vocab, length, lean=1.0)
    limits, ops, worth, ends = [5, 5, 5, 5, 4, 4], loop.all_room(length), wu(alpha), set()

    @jax.jit
    def steps(limits):
        options = dict(eos=EOS, beam_size=width, max_length=length, reorder=ops.reorder)
        options |= dict(normalise=gnmt(alpha), stopping=bounded())
        search = beam(step, jnp.full(batch, 1, jnp.int32), limits, **options)
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
    ("stopping", "length"), [(first(), 1), (first(2.0), 4), (bounded(), 4), (never(), 4)]
)
def test_waiting_finds_what_haste_does_not(stopping, length):
    """EOS is likely at first; who does not take it finds an output of a better mean."""

    def step(tokens, cache, index):
        start = jnp.log(jnp.array([0.6, 0.3, 0.1]))
        later = jnp.log(jnp.array([[1e-9, 1.0, 1e-9], [1.0, 1e-9, 1e-9]]))[index // 3]
        row = jnp.where(index == 0, start, later)
        row = jnp.broadcast_to(row, (1, 1, 3))
        return Next(row, jnp.zeros((1, 1)), row[..., EOS]), cache

    options = dict(stopping=stopping, normalise=average())
    found = run(step, 1, 1, 0, [4], 4, **options)
    assert found.lengths[0, 0] == (1 if length == 1 else 4)


@pytest.mark.parametrize("width", [1, 2, 4, 9])
def test_no_width_beats_exhaustive_search(width):
    batch, vocab, length = 3, 3, 4
    log_prob, step = language(5, batch, vocab, length)
    found = run(step, batch, width, 0.6, [4] * batch, length, stopping=never())
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


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("penalty", ["none", "average"])
def test_now_goes_on_while_a_live_output_would_be_among_the_best_if_it_ended(width, penalty):
    batch, vocab, length = 12, 4, 5
    log_prob, step = language(13, batch, vocab, length, sharpness=4.0)
    normalise, worth = PENALTIES[penalty]
    found = run(
        step, batch, width, 0, [length] * batch, length, normalise=normalise, stopping=now()
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
    never_free = run(step, batch, width, 0.0, [length] * batch, length, stopping=never())
    free = run(step, batch, width, 0.0, [length] * batch, length, stopping=never(), free_end=True)
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
