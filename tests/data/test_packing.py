"""Pairs in few rows: each once, none beyond its row's end, hardly a place empty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import BOS, EOS, shift_right
from data.batch_schedule import BatchSchedule
from data.packing import pack, room
from data.pipeline import Ragged, Shard, TokenPairs, collate

LENGTHS = st.lists(st.tuples(st.integers(2, 40), st.integers(2, 40)), min_size=1, max_size=300)


def kinds_of(source, target):
    return np.unique(np.stack([source, target], 1), axis=0, return_inverse=True)[1].ravel()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LENGTHS)
def test_every_pair_has_a_place_in_a_row_that_has_room(lengths):
    source, target = np.array(lengths).T
    size = room(source, target)
    assert size[0] >= source.max() and size[1] >= target.max()
    rows = pack(source, target, size)
    assert sorted(rows.place) == list(range(len(lengths)))
    assert (np.diff(rows.row) >= 0).all() and set(rows.row) == set(range(rows.count))
    order = np.argsort(kinds_of(source, target), kind="stable")  # whichever of a kind: all alike
    for side, most in zip((source, target), size, strict=True):
        held = np.bincount(rows.row, side[order][rows.place])
        assert held.max() <= most


def text(count, seed=0, longest=64):
    """Pairs of ids 10 .., of lengths as sentences have them; ids tell the pair."""
    random = np.random.default_rng(seed)
    source = np.exp(np.log(18) + 0.6 * random.standard_normal(count))
    target = 1.1 * source * np.exp(0.2 * random.standard_normal(count))
    sides = (np.clip(side.astype(int), 1, longest - 1) for side in (source, target))
    return TokenPairs(*(Ragged([[10 + i] * n for i, n in enumerate(side)]) for side in sides))


def test_of_sentences_less_than_a_twentieth_of_the_places_is_empty():
    for longest in 64, 200:
        pairs = text(5000, longest=longest)
        plan = BatchSchedule(pairs, np.arange(5000), 0, packed=True, tokens_per_batch=4000)
        assert plan.padding < 0.05 and len(plan.buckets) == 1
        apart = BatchSchedule(pairs, np.arange(5000), 0, count=8, tokens_per_batch=4000)
        assert apart.padding > plan.padding


def numbers(ids):
    """Which pairs a row's ids are of, in order, each once."""
    return [int(i) - 10 for i in dict.fromkeys(ids[ids >= 10].tolist())]


def test_an_epoch_has_every_pair_once_and_each_epoch_others_together():
    pairs = text(3000)
    plan = BatchSchedule(pairs, np.arange(3000), 0, packed=True, tokens_per_batch=640)
    seen, company = [], []
    for epoch in range(2):
        first = epoch * plan.batches_per_epoch
        batches = [collate(pairs, plan[first + i]) for i in range(plan.batches_per_epoch)]
        rows = [numbers(row) for batch in batches for row in batch.src]
        assert rows != [] and rows == [numbers(row) for batch in batches for row in batch.tgt]
        seen.append(sorted(number for row in rows for number in row))
        company.append({tuple(sorted(row)) for row in rows})
    assert seen == [list(range(3000))] * 2
    assert len(company[0] & company[1]) < len(company[0]) / 4
    again = BatchSchedule(pairs, np.arange(3000), 0, packed=True, tokens_per_batch=640)
    np.testing.assert_array_equal(again[7].pairs, plan[7].pairs)
    assert any(set(plan.reshuffled(1)[i].pairs) != set(plan[i].pairs) for i in range(3))


@pytest.mark.parametrize("multiple_of", [1, 8])
def test_rows_hold_their_pairs_one_behind_the_other(multiple_of):
    pairs = text(60)
    plan = BatchSchedule(pairs, np.arange(60), 0, packed=True, tokens_per_batch=400)
    batch = collate(pairs, plan[0], multiple_of)
    assert len(batch.src) % multiple_of == 0
    for ids, segments in (batch.src, batch.src_segments), (batch.tgt, batch.tgt_segments):
        assert ((segments == 0) == (ids == 0)).all()
        for row, segment in zip(ids, segments, strict=True):
            ends = np.flatnonzero(row == EOS)
            assert segment.max() == len(ends)
            np.testing.assert_array_equal(segment[ends], np.arange(1, len(ends) + 1))
            assert (np.diff(segment[segment > 0]) >= 0).all()
    read = shift_right(batch.tgt, batch.tgt_segments)
    for row, segment in zip(read, batch.tgt_segments, strict=True):
        starts = [np.flatnonzero(segment == n)[0] for n in range(1, segment.max() + 1)]
        assert (row[starts] == BOS).all() and (row == BOS).sum() <= len(starts) + 1
    whole = collate(pairs, plan[0], 8)
    for part in range(4):
        some = collate(pairs, plan[0], 8, Shard((part,), 4))
        for mine, all_ in zip(some, whole, strict=True):
            np.testing.assert_array_equal(mine, np.split(all_, 4)[part])
