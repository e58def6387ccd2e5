"""Few shapes that hold every pair, cut where they leave the fewest padded positions."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.buckets import make_buckets

LENGTHS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=40)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
def test_buckets_are_few_hold_their_pairs_and_keep_the_budget(lengths, count, multiple):
    source, target = np.array(lengths).T
    buckets, which = make_buckets(
        source, target, count=count, tokens_per_batch=48, multiple_of=multiple
    )
    assert len(buckets) <= count and set(which) == set(range(len(buckets)))
    for pair, i in zip(lengths, which, strict=True):
        assert pair[0] <= buckets[i].source and pair[1] <= buckets[i].target
    for i, bucket in enumerate(buckets):
        assert bucket.rows % multiple == 0
        assert bucket.rows * max(bucket.source, bucket.target) <= 48
        pairs = (which == i).sum()
        most = 48 // max(bucket.source, bucket.target) // multiple * multiple
        batches = -(-pairs // bucket.rows)
        assert batches == -(-pairs // most)  # never more batches than the fullest ones would be
        assert batches * bucket.rows - pairs < batches * multiple  # and no nearly empty one


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 4))
def test_cuts_are_the_best_of_all(lengths, count):
    source, target = np.array(lengths).T
    longest = np.maximum(source, target)
    _, which = make_buckets(source, target, count=count, tokens_per_batch=999)
    ends = [longest[which == i].max() for i in range(which.max() + 1)]
    assert all(np.diff(ends) > 0)

    def cost(ends):
        return sum(min(end for end in ends if end >= length) for length in longest)

    others = sorted(set(longest.tolist()) - {longest.max()})
    choices = itertools.chain.from_iterable(
        itertools.combinations(others, n) for n in range(min(count, len(others) + 1))
    )
    assert cost(ends) == min(cost([*choice, longest.max()]) for choice in choices)
