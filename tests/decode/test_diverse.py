"""Diverse beam search compared with a list-based version and with beam search."""

from collections import Counter
from functools import partial

import numpy as np
import pytest

from decode import transforms
from decode.diverse import diverse_beam_search
from decode.length_normalization import average, gnmt
from decode.stopping import at_limit, when_full, when_unbeatable
from tests.decode.toy_language import (
    all_continuations,
    average_score,
    language,
    plain_beam,
    run,
    stop_after,
)

WIDTH, GROUPS = 6, 3
GROUP_SIZE = WIDTH // GROUPS
# Stopping rule, and the finished hypotheses needed per group; None: run to the limit.
RULES = {
    "full": (when_full(), 2),
    "patient": (when_full(2.0), 4),
    "hasty": (when_full(0.5), 1),
    "unbeatable": (when_unbeatable(), None),
    "limit": (at_limit(), None),
}
BATCH, VOCAB, LENGTH = 6, 4, 5
LOG_PROB, STEP = language(1, BATCH, VOCAB, LENGTH, eos_bias=0.5)
LIMITS = [5, 4, 5, 2, 1, 5]


def diverse(limits, num_groups, diversity_penalty, width=4, step=STEP, **options):
    """Runs diverse beam search on one sentence per limit."""
    options = dict(length_norm=gnmt(0.6), stopping=when_full()) | options
    options |= dict(beam_size=width, num_groups=num_groups, diversity_penalty=diversity_penalty)
    return run(step, BATCH, width, 0, limits, LENGTH, search=diverse_beam_search, **options)


def plain_groups(b, diversity_penalty, num_finished, banned=()):
    """Runs beam search group by group, penalizing tokens that earlier groups chose at a step."""
    counts, score_by_output = [Counter() for _ in range(LENGTH)], {}

    def candidates_of(live, n):
        candidates = [
            (total, tokens)
            for total, tokens in all_continuations(partial(LOG_PROB, b), live, n == LIMITS[b])
            if tokens[-2:] not in banned
        ]
        penalties = dict(counts[n - 1]) if n < LIMITS[b] else {}
        candidates.sort(key=lambda c: diversity_penalty * penalties.get(c[1][-1], 0) - c[0])
        counts[n - 1].update(tokens[-1] for _, tokens in candidates[:GROUP_SIZE])
        return candidates

    for _ in range(GROUPS):
        finished, _ = plain_beam(
            candidates_of, LIMITS[b], GROUP_SIZE, average_score(0.6), stop_after(num_finished)
        )
        score_by_output |= {tokens: score for score, tokens in finished}
    return sorted(
        ((score, tokens) for tokens, score in score_by_output.items()), key=lambda c: -c[0]
    )


def assert_equal(result, diversity_penalty, num_finished, banned=()):
    """Asserts that outputs and scores equal those of `plain_groups`."""
    for b in range(BATCH):
        expected = plain_groups(b, diversity_penalty, num_finished, banned)
        assert len(expected) == np.isfinite(result.scores[b]).sum()
        for i, (score, tokens) in enumerate(expected):
            assert tuple(result.tokens[b, i, : result.lengths[b, i]]) == tokens
            np.testing.assert_allclose(result.scores[b, i], score, rtol=1e-5)


@pytest.mark.parametrize("diversity_penalty", [0.5, 2.0])
@pytest.mark.parametrize("rule", RULES)
def test_diverse_beam_search_equals_plain_groups(rule, diversity_penalty):
    """Equals a version written with Python lists: same outputs and scores for every group."""
    stopping, num_finished = RULES[rule]
    options = dict(length_norm=average(0.6), stopping=stopping)
    assert_equal(
        diverse(LIMITS, GROUPS, diversity_penalty, WIDTH, **options),
        diversity_penalty,
        num_finished,
    )


def test_a_group_without_candidates_adds_nothing():
    # Only EOS may follow 1 or 2: some groups run out of live beams before others.
    banned = {(previous, token) for previous in (1, 2) for token in range(1, VOCAB)}
    options = dict(length_norm=average(0.6), stopping=at_limit())
    options |= dict(transform=transforms.ban_phrases(sorted(banned)))
    assert_equal(diverse(LIMITS, GROUPS, 2.0, WIDTH, **options), 2.0, None, banned)


def test_groups_are_beam_searches_that_diversify():
    limits = [LENGTH] * BATCH
    plain = run(STEP, BATCH, 4, 0.6, limits, LENGTH)
    for actual, expected in zip(plain, diverse(limits, 1, 0.5), strict=True):
        np.testing.assert_array_equal(actual, expected)
    # Without a penalty all groups equal a beam of half the width; with one they differ.
    half = run(STEP, BATCH, 2, 0.6, limits, LENGTH)
    same, diverse_result = diverse(limits, 2, 0.0), diverse(limits, 2, 10.0)
    np.testing.assert_allclose(same.scores[:, :2], half.scores, rtol=1e-6)

    def num_outputs(result):
        """Number of outputs; asserts that all are distinct."""
        for tokens, scores in zip(result.tokens, result.scores, strict=True):
            outputs = [tuple(row) for row in tokens[np.isfinite(scores)]]
            assert len(set(outputs)) == len(outputs)
        return np.isfinite(result.scores).sum()

    assert num_outputs(diverse_result) > num_outputs(same) == BATCH * 2
