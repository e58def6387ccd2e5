"""Packing: every pair once, within the row lengths, with little padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import BOS, EOS, shift_right
from data.batch_schedule import BatchSchedule
from data.packing import pack, row_lengths
from data.pipeline import BatchShards, Ragged, TokenPairs, collate

LENGTHS = st.lists(st.tuples(st.integers(2, 40), st.integers(2, 40)), min_size=1, max_size=300)


def length_groups(source, target):
    return np.unique(np.stack([source, target], 1), axis=0, return_inverse=True)[1].ravel()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LENGTHS)
def test_every_pair_fits_in_its_row(lengths):
    source, target = np.array(lengths).T
    size = row_lengths(source, target)
    assert size[0] >= source.max() and size[1] >= target.max()
    rows = pack(source, target, size)
    assert sorted(rows.position) == list(range(len(lengths)))
    assert (np.diff(rows.row) >= 0).all() and set(rows.row) == set(range(rows.count))
    # Pairs of equal lengths are interchangeable.
    order = np.argsort(length_groups(source, target), kind="stable")
    for side, max_length in zip((source, target), size, strict=True):
        used = np.bincount(rows.row, side[order][rows.position])
        assert used.max() <= max_length


def text(count, seed=0, max_length=64):
    """Pairs of realistic lengths; all ids of pair i are 10 + i."""
    random = np.random.default_rng(seed)
    source = np.exp(np.log(18) + 0.6 * random.standard_normal(count))
    target = 1.1 * source * np.exp(0.2 * random.standard_normal(count))
    sides = (np.clip(side.astype(int), 1, max_length - 1) for side in (source, target))
    return TokenPairs(*(Ragged([[10 + i] * n for i, n in enumerate(side)]) for side in sides))


def test_packing_leaves_less_than_5_percent_padding():
    for max_length in 64, 200:
        pairs = text(5000, max_length=max_length)
        packed = BatchSchedule(pairs, np.arange(5000), 0, packed=True, tokens_per_batch=4000)
        assert packed.padding < 0.05 and len(packed.buckets) == 1
        unpacked = BatchSchedule(pairs, np.arange(5000), 0, count=8, tokens_per_batch=4000)
        assert unpacked.padding > packed.padding


def pair_numbers(ids):
    """Numbers of the pairs in a row, in order, without duplicates."""
    return [int(i) - 10 for i in dict.fromkeys(ids[ids >= 10].tolist())]


def test_an_epoch_has_every_pair_once_in_new_combinations():
    pairs = text(3000)
    schedule = BatchSchedule(pairs, np.arange(3000), 0, packed=True, tokens_per_batch=640)
    pairs_of_epochs, rows_of_epochs = [], []
    for epoch in range(2):
        first = epoch * schedule.batches_per_epoch
        batches = [collate(pairs, schedule[first + i]) for i in range(schedule.batches_per_epoch)]
        rows = [pair_numbers(row) for batch in batches for row in batch.src]
        assert rows != [] and rows == [pair_numbers(row) for batch in batches for row in batch.tgt]
        pairs_of_epochs.append(sorted(number for row in rows for number in row))
        rows_of_epochs.append({tuple(sorted(row)) for row in rows})
    assert pairs_of_epochs == [list(range(3000))] * 2
    assert len(rows_of_epochs[0] & rows_of_epochs[1]) < len(rows_of_epochs[0]) / 4
    repeated = BatchSchedule(pairs, np.arange(3000), 0, packed=True, tokens_per_batch=640)
    np.testing.assert_array_equal(repeated[7].pairs, schedule[7].pairs)
    assert any(set(schedule.reshuffled(1)[i].pairs) != set(schedule[i].pairs) for i in range(3))


@pytest.mark.parametrize("multiple_of", [1, 8])
def test_rows_concatenate_their_pairs(multiple_of):
    pairs = text(60)
    schedule = BatchSchedule(pairs, np.arange(60), 0, packed=True, tokens_per_batch=400)
    batch = collate(pairs, schedule[0], multiple_of)
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
    batch_of_8 = collate(pairs, schedule[0], 8)
    for part in range(4):
        shard = collate(pairs, schedule[0], 8, BatchShards((part,), 4))
        for actual, expected in zip(shard, batch_of_8, strict=True):
            np.testing.assert_array_equal(actual, np.split(expected, 4)[part])
