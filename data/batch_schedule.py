"""Batch schedule: the pairs of each step as a function of seed and step number."""

import copy
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from data import packing
from data.buckets import Bucket, make_buckets, rows_per_batch

_EMPTY = 0.03  # of all positions: then longer rows are not tried


class BatchSpec(NamedTuple):
    """One batch: its shape, the numbers of its pairs [n], and the row of each [n], ascending.

    A row of several pairs is `packed`.
    """

    bucket: Bucket
    pairs: np.ndarray
    rows: np.ndarray
    packed: bool = False


class BatchSchedule:
    """Which pairs make the batch of which step: `plan[step]`.

    Every epoch has the same number of batches and every kept pair once, in an order that depends
    on seed and epoch alone. With `packed` all batches have one shape, and rows hold several pairs;
    without, they have at most `count` shapes, and rows one pair each. An epoch's last batches may
    have fewer pairs than others.
    """

    def __init__(
        self,
        pairs,
        kept: np.ndarray,
        seed: int,
        *,
        tokens_per_batch: int,
        multiple_of: int = 1,
        packed: bool = False,
        count: int = 8,
    ):
        """`pairs.lengths` (source, target) count EOS; `kept` are numbers of pairs."""
        self.kept, self.seed, self._order, self._ahead = kept, seed, 0, 0
        source, target = (side[kept] for side in pairs.lengths)
        self.tokens = int(source.sum() + target.sum())  # in an epoch
        options = dict(tokens_per_batch=tokens_per_batch, multiple_of=multiple_of)
        kind = _Packed(source, target, **options) if packed else None
        self._layout = kind or _Bucketed(source, target, count=count, **options)
        self.buckets, each = self._layout.buckets, self._layout.batches
        self.batches_per_epoch = sum(each)
        positions = sum(
            n * bucket.rows * (bucket.source + bucket.target)
            for n, bucket in zip(each, self.buckets, strict=True)
        )
        self.padding = 1 - self.tokens / positions
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def reshuffled(self, order: int) -> "BatchSchedule":
        """The same pairs in batches of the same shapes, in another order for every `order`."""
        other = copy.copy(self)
        other._order = order  # 0 is the order that a plan begins with
        other._epoch = lru_cache(maxsize=2)(other._make_epoch)
        return other

    def shifted(self, batches: int) -> "BatchSchedule":
        """The same plan so many batches further on (or back, where negative) at every step."""
        other = copy.copy(self)
        other._ahead = batches
        return other

    def _make_epoch(self, epoch: int) -> list[BatchSpec]:
        rng = np.random.default_rng([self.seed, epoch, *[self._order] * (self._order > 0)])
        batches = self._layout.epoch(rng)
        order = rng.permutation(len(batches))
        return [batches[i]._replace(pairs=self.kept[batches[i].pairs]) for i in order]

    def __len__(self) -> int:
        return 1 << 40  # steps never run out

    def __getitem__(self, step: int) -> BatchSpec:
        epoch, index = divmod(int(step) + self._ahead, self.batches_per_epoch)
        return self._epoch(epoch)[index]

    def __str__(self):
        shapes = ", ".join(f"{b.rows}x({b.source}, {b.target})" for b in self.buckets)
        return (
            f"{self.batches_per_epoch} batches an epoch in {len(self.buckets)} shapes "
            f"(rows x (source, target)): {shapes}; padding {self.padding:.1%}"
        )


class _Bucketed:
    """A pair a row, in batches of pairs of like length."""

    def __init__(self, source: np.ndarray, target: np.ndarray, **options):
        self.buckets, self._which = make_buckets(source, target, **options)
        counts = np.bincount(self._which, minlength=len(self.buckets))
        self.batches = [-(-int(n) // b.rows) for n, b in zip(counts, self.buckets, strict=True)]

    def epoch(self, rng: np.random.Generator) -> list[BatchSpec]:
        order = rng.permutation(len(self._which))
        batches = []
        for i, bucket in enumerate(self.buckets):
            pairs = order[self._which[order] == i]
            for start in range(0, len(pairs), bucket.rows):
                some = pairs[start : start + bucket.rows]
                batches.append(BatchSpec(bucket, some, np.arange(len(some))))
        return batches


class _Packed:
    """Several pairs a row (data/packing.py), in batches of one shape."""

    def __init__(
        self, source: np.ndarray, target: np.ndarray, tokens_per_batch: int, multiple_of: int
    ):
        size, self._rows = _best_row_size(source, target, tokens_per_batch // multiple_of)
        # By both lengths, as slots count them.
        self._kind = np.unique(np.stack([source, target], 1), axis=0, return_inverse=True)[
            1
        ].ravel()
        rows = rows_per_batch(self._rows.count, max(size), tokens_per_batch, multiple_of)
        self.buckets = [Bucket(rows, *size)]
        self.batches = [-(-self._rows.count // rows)]

    def epoch(self, rng: np.random.Generator) -> list[BatchSpec]:
        (bucket,) = self.buckets
        order = rng.permutation(len(self._kind))
        sorted_ = order[np.argsort(self._kind[order], kind="stable")]
        pairs, row = sorted_[self._rows.place], self._rows.row
        starts = np.searchsorted(row, np.arange(self._rows.count + 1))
        shuffled = rng.permutation(self._rows.count)
        batches = []
        for start in range(0, len(shuffled), bucket.rows):
            rows = shuffled[start : start + bucket.rows]
            slots = [np.arange(starts[r], starts[r + 1]) for r in rows]
            own = np.repeat(np.arange(len(rows)), [len(each) for each in slots])
            batches.append(BatchSpec(bucket, pairs[np.concatenate(slots)], own, packed=True))
        return batches


def _best_row_size(
    source: np.ndarray, target: np.ndarray, most: int
) -> tuple[tuple[int, int], packing.PackedRows]:
    """Rows of one size: short ones, which attention is fastest over, or longer where these fill up.

    None has more than `most` positions a side, unless a single pair does.
    """
    found: list[tuple[float, tuple[int, int], packing.PackedRows]] = []
    for pairs in 1, 6:
        size = packing.room(source, target, pairs)
        if found and max(size) > most:
            break
        rows = packing.pack(source, target, size)
        empty = 1 - (source.sum() + target.sum()) / (rows.count * sum(size))
        found.append((empty, size, rows))
        if empty < _EMPTY:
            break
    _, size, rows = min(found, key=lambda each: each[0])
    return size, rows
