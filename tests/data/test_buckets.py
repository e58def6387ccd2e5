"""Length buckets: few shapes that fit every pair, with optimal boundaries."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.buckets import make_buckets

LENGTHS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=40)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
def test_buckets_fit_their_pairs_and_the_token_budget(lengths, count, multiple):
    source, target = np.array(lengths).T
    buckets, bucket_ids = make_buckets(
        source, target, count=count, tokens_per_batch=48, multiple_of=multiple
    )
    assert len(buckets) <= count and set(bucket_ids) == set(range(len(buckets)))
    for pair, i in zip(lengths, bucket_ids, strict=True):
        assert pair[0] <= buckets[i].source and pair[1] <= buckets[i].target
    for i, bucket in enumerate(buckets):
        assert bucket.rows % multiple == 0
        assert bucket.rows * max(bucket.source, bucket.target) <= 48
        pairs = (bucket_ids == i).sum()
        max_rows = 48 // max(bucket.source, bucket.target) // multiple * multiple
        batches = -(-pairs // bucket.rows)
        assert batches == -(-pairs // max_rows)  # no more batches than with full rows
        assert batches * bucket.rows - pairs < batches * multiple  # and no nearly empty batch


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 4))
def test_bucket_boundaries_are_optimal(lengths, count):
    source, target = np.array(lengths).T
    max_lengths = np.maximum(source, target)
    _, bucket_ids = make_buckets(source, target, count=count, tokens_per_batch=999)
    boundaries = [max_lengths[bucket_ids == i].max() for i in range(bucket_ids.max() + 1)]
    assert all(np.diff(boundaries) > 0)

    def cost(boundaries):
        return sum(min(end for end in boundaries if end >= length) for length in max_lengths)

    inner_lengths = sorted(set(max_lengths.tolist()) - {max_lengths.max()})
    choices = itertools.chain.from_iterable(
        itertools.combinations(inner_lengths, n) for n in range(min(count, len(inner_lengths) + 1))
    )
    assert cost(boundaries) == min(cost([*choice, max_lengths.max()]) for choice in choices)
