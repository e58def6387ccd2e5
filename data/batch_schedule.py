"""Batch schedule: the pairs of each step as a function of seed and step number."""

import copy
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from data import packing
from data.buckets import Bucket, make_buckets, rows_per_batch

_MAX_EMPTY = 0.03  # fraction of empty positions below which longer rows are not tried


class BatchSpec(NamedTuple):
    """One batch: its shape, the indices of its pairs [n], and the row of each [n], ascending.

    With `packed`, a row may hold several pairs.
    """

    bucket: Bucket
    pairs: np.ndarray
    rows: np.ndarray
    packed: bool = False


class BatchSchedule:
    """The batches of a training run: `schedule[step]` is the `BatchSpec` of a step.

    Every epoch has the same number of batches and every pair in `indices` once, in an order that
    depends only on seed and epoch. With `packed`, all batches have one shape, and rows hold several
    pairs; otherwise batches have at most `count` shapes, and a row holds one pair. The last batches
    of an epoch may have fewer pairs than the others.
    """

    def __init__(
        self,
        pairs,
        indices: np.ndarray,
        seed: int,
        *,
        tokens_per_batch: int,
        multiple_of: int = 1,
        packed: bool = False,
        count: int = 8,
    ):
        """`pairs.lengths` (source, target) count EOS; `indices` select the pairs to train on."""
        self.indices, self.seed, self._order, self._offset = indices, seed, 0, 0
        source, target = (side[indices] for side in pairs.lengths)
        self.tokens = int(source.sum() + target.sum())  # in an epoch
        options = dict(tokens_per_batch=tokens_per_batch, multiple_of=multiple_of)
        self._layout: _Packed | _Bucketed
        if packed:
            self._layout = _Packed(source, target, **options)
        else:
            self._layout = _Bucketed(source, target, count=count, **options)
        self.buckets, counts = self._layout.buckets, self._layout.batches
        self.batches_per_epoch = sum(counts)
        positions = sum(
            n * bucket.rows * (bucket.source + bucket.target)
            for n, bucket in zip(counts, self.buckets, strict=True)
        )
        self.padding = 1 - self.tokens / positions
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def reshuffled(self, order: int) -> "BatchSchedule":
        """A schedule of the same pairs and shapes, in a different order for every `order`."""
        schedule = copy.copy(self)
        schedule._order = order  # 0 is the order of a new schedule
        schedule._epoch = lru_cache(maxsize=2)(schedule._make_epoch)
        return schedule

    def shifted(self, batches: int) -> "BatchSchedule":
        """The same schedule with every step shifted forward by `batches`, backward if negative."""
        schedule = copy.copy(self)
        schedule._offset = batches
        return schedule

    def _make_epoch(self, epoch: int) -> list[BatchSpec]:
        rng = np.random.default_rng([self.seed, epoch, *([self._order] if self._order else [])])
        batches = self._layout.epoch(rng)
        order = rng.permutation(len(batches))
        return [batches[i]._replace(pairs=self.indices[batches[i].pairs]) for i in order]

    def __len__(self) -> int:
        return 1 << 40  # steps never run out

    def __getitem__(self, step: int) -> BatchSpec:
        epoch, index = divmod(int(step) + self._offset, self.batches_per_epoch)
        return self._epoch(epoch)[index]

    def __str__(self):
        shapes = ", ".join(f"{b.rows}x({b.source}, {b.target})" for b in self.buckets)
        return (
            f"{self.batches_per_epoch} batches an epoch in {len(self.buckets)} shapes "
            f"(rows x (source, target)): {shapes}; padding {self.padding:.1%}"
        )


class _Bucketed:
    """One pair per row, in batches of pairs of similar length."""

    def __init__(self, source: np.ndarray, target: np.ndarray, **options):
        self.buckets, self._assignment = make_buckets(source, target, **options)
        counts = np.bincount(self._assignment, minlength=len(self.buckets))
        self.batches = [-(-int(n) // b.rows) for n, b in zip(counts, self.buckets, strict=True)]

    def epoch(self, rng: np.random.Generator) -> list[BatchSpec]:
        order = rng.permutation(len(self._assignment))
        batches = []
        for i, bucket in enumerate(self.buckets):
            pairs = order[self._assignment[order] == i]
            for start in range(0, len(pairs), bucket.rows):
                subset = pairs[start : start + bucket.rows]
                batches.append(BatchSpec(bucket, subset, np.arange(len(subset))))
        return batches


class _Packed:
    """Several pairs per row (data/packing.py), in batches of one shape."""

    def __init__(
        self, source: np.ndarray, target: np.ndarray, tokens_per_batch: int, multiple_of: int
    ):
        size, self._rows = _best_row_size(source, target, tokens_per_batch // multiple_of)
        # The rank of each pair's two lengths, in the sort order of `PackedRows.position`.
        shapes = np.stack([source, target], 1)
        self._shape = np.unique(shapes, axis=0, return_inverse=True)[1].ravel()
        rows = rows_per_batch(self._rows.count, max(size), tokens_per_batch, multiple_of)
        self.buckets = [Bucket(rows, *size)]
        self.batches = [-(-self._rows.count // rows)]

    def epoch(self, rng: np.random.Generator) -> list[BatchSpec]:
        (bucket,) = self.buckets
        order = rng.permutation(len(self._shape))
        sorted_ = order[np.argsort(self._shape[order], kind="stable")]
        pairs, row = sorted_[self._rows.position], self._rows.row
        starts = np.searchsorted(row, np.arange(self._rows.count + 1))
        shuffled = rng.permutation(self._rows.count)
        batches = []
        for start in range(0, len(shuffled), bucket.rows):
            rows = shuffled[start : start + bucket.rows]
            slots = [np.arange(starts[r], starts[r + 1]) for r in rows]
            row_index = np.repeat(np.arange(len(rows)), [len(slot) for slot in slots])
            batches.append(BatchSpec(bucket, pairs[np.concatenate(slots)], row_index, packed=True))
        return batches


def _best_row_size(
    source: np.ndarray, target: np.ndarray, max_positions: int
) -> tuple[tuple[int, int], packing.PackedRows]:
    """Choose the row size: short rows, for fast attention, or longer ones if these fill better.

    A side has at most `max_positions` positions, unless a single pair has more.
    """
    candidates: list[tuple[float, tuple[int, int], packing.PackedRows]] = []
    for pairs in 1, 6:
        size = packing.row_lengths(source, target, pairs)
        if candidates and max(size) > max_positions:
            break
        rows = packing.pack(source, target, size)
        empty = 1 - (source.sum() + target.sum()) / (rows.count * sum(size))
        candidates.append((empty, size, rows))
        if empty < _MAX_EMPTY:
            break
    _, size, rows = min(candidates, key=lambda candidate: candidate[0])
    return size, rows
