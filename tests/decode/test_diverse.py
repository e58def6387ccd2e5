"""Diverse beam search against its rules written with lists, and against the plain beam."""

from collections import Counter
from functools import partial

import numpy as np
import pytest

from decode import transforms
from decode.diverse import diverse_beam_search
from decode.length_normalization import average, gnmt
from decode.stopping import at_limit, when_full, when_unbeatable
from tests.decode.toy_language import enough, every_choice, language, mean, plain_beam, run

WIDTH, GROUPS = 6, 3
EACH = WIDTH // GROUPS
# And how many of a group must have ended; None: it goes on to the limit, or finds the same.
RULES = {
    "first": (when_full(), 2),
    "patient": (when_full(2.0), 4),
    "hasty": (when_full(0.5), 1),
    "bounded": (when_unbeatable(), None),
    "never": (at_limit(), None),
}
BATCH, VOCAB, LENGTH = 6, 4, 5
LOG_PROB, STEP = language(1, BATCH, VOCAB, LENGTH, lean=0.5)
LIMITS = [5, 4, 5, 2, 1, 5]


def diverse(limits, num_groups, diversity_penalty, width=4, step=STEP, **how):
    """What is found for as many sentences as there are limits."""
    how = dict(length_norm=gnmt(0.6), stopping=when_full()) | how
    how |= dict(beam_size=width, num_groups=num_groups, diversity_penalty=diversity_penalty)
    return run(step, BATCH, width, 0, limits, LENGTH, search=diverse_beam_search, **how)


def plain_groups(b, diversity_penalty, needed, banned=()):
    """Group after group a plain beam, each with what earlier ones took after as many tokens."""
    taken, found = [Counter() for _ in range(LENGTH)], {}

    def offered(live, n):
        candidates = [
            (total, tokens)
            for total, tokens in every_choice(partial(LOG_PROB, b), live, n == LIMITS[b])
            if tokens[-2:] not in banned
        ]
        price = dict(taken[n - 1]) if n < LIMITS[b] else {}
        candidates.sort(key=lambda c: diversity_penalty * price.get(c[1][-1], 0) - c[0])
        taken[n - 1].update(tokens[-1] for _, tokens in candidates[:EACH])
        return candidates

    for _ in range(GROUPS):
        pool, _ = plain_beam(offered, LIMITS[b], EACH, mean(0.6), enough(needed))
        found |= {tokens: score for score, tokens in pool}
    return sorted(((score, tokens) for tokens, score in found.items()), key=lambda c: -c[0])


def equal(found, diversity_penalty, needed, banned=()):
    """Whether each sentence's outputs and scores are those of the lists."""
    for b in range(BATCH):
        expected = plain_groups(b, diversity_penalty, needed, banned)
        assert len(expected) == np.isfinite(found.scores[b]).sum()
        for i, (score, tokens) in enumerate(expected):
            assert tuple(found.tokens[b, i, : found.lengths[b, i]]) == tokens
            np.testing.assert_allclose(found.scores[b, i], score, rtol=1e-5)


@pytest.mark.parametrize("diversity_penalty", [0.5, 2.0])
@pytest.mark.parametrize("rule", RULES)
def test_equals_plain_groups(rule, diversity_penalty):
    """The documented rules, written with lists: same outputs, same scores, of every group."""
    stopping, needed = RULES[rule]
    how = dict(length_norm=average(0.6), stopping=stopping)
    equal(diverse(LIMITS, GROUPS, diversity_penalty, WIDTH, **how), diversity_penalty, needed)


def test_a_group_that_nothing_is_left_for_takes_nothing():
    # After 1 or 2 comes the end only: groups of such beams die while others go on.
    banned = {(last, token) for last in (1, 2) for token in range(1, VOCAB)}
    how = dict(length_norm=average(0.6), stopping=at_limit())
    how |= dict(transform=transforms.ban_phrases(sorted(banned)))
    equal(diverse(LIMITS, GROUPS, 2.0, WIDTH, **how), 2.0, None, banned)


def test_groups_are_beams_and_avoid_each_other():
    limits = [LENGTH] * BATCH
    plain = run(STEP, BATCH, 4, 0.6, limits, LENGTH)
    for left, right in zip(plain, diverse(limits, 1, 0.5), strict=True):
        np.testing.assert_array_equal(left, right)
    # Without a price all groups are the same beam of half the width; with one they are not.
    half = run(STEP, BATCH, 2, 0.6, limits, LENGTH)
    same, apart = diverse(limits, 2, 0.0), diverse(limits, 2, 10.0)
    np.testing.assert_allclose(same.scores[:, :2], half.scores, rtol=1e-6)

    def there(found):
        """How many outputs there are, of which none is there twice."""
        for tokens, scores in zip(found.tokens, found.scores, strict=True):
            real = [tuple(row) for row in tokens[np.isfinite(scores)]]
            assert len(set(real)) == len(real)
        return np.isfinite(found.scores).sum()

    assert there(apart) > there(same) == BATCH * 2
