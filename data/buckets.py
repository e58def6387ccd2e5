"""Bucketing: a few fixed batch shapes with little padding for pairs of all lengths.

Lengths count EOS. Each shape costs one compilation. Each pair goes to the first bucket that holds
both of its sides.
"""

import math
from typing import NamedTuple

import numpy as np

from data.errors import DataError

_ROUNDED_ROWS = 64  # from this many rows, rounding to a multiple of 8 loses at most an eighth


class Bucket(NamedTuple):
    """One batch shape: [rows, source] and [rows, target] ids."""

    rows: int
    source: int
    target: int

    def with_rows(self, multiple_of: int) -> "Bucket":
        """The same bucket with rows rounded up to a multiple of `multiple_of`."""
        return self._replace(rows=-(-self.rows // multiple_of) * multiple_of)


def make_buckets(
    source: np.ndarray,
    target: np.ndarray,
    *,
    count: int,
    tokens_per_batch: int,
    multiple_of: int = 1,
    overflow: bool = False,
) -> tuple[list[Bucket], np.ndarray]:
    """Make at most `count` buckets for pairs of these lengths [n]; also each pair's bucket [n].

    Boundaries of max(source, target) minimize the number of padded positions (exactly, by dynamic
    programming). A batch has at most `tokens_per_batch` positions per side, and a multiple of
    `multiple_of` rows; with many rows also a multiple of 8, so that meshes of up to 8 devices
    split them evenly. If `multiple_of` rows alone exceed the limit, they form the batch with
    `overflow`; without it DataError is raised.
    """
    longest = np.maximum(source, target)
    counts = np.bincount(longest)  # the number of pairs of each length
    ends = _optimal_boundaries(counts, count)
    assignment = np.searchsorted(ends, longest)
    buckets = []
    for i in range(len(ends)):
        inside = assignment == i
        sides = int(source[inside].max()), int(target[inside].max())
        pairs = int(inside.sum())
        rows = rows_per_batch(pairs, max(sides), tokens_per_batch, multiple_of, overflow)
        buckets.append(Bucket(rows, *sides))
    return buckets, assignment


def rows_per_batch(
    count: int, length: int, tokens_per_batch: int, multiple_of: int, overflow: bool = False
) -> int:
    """The number of rows of `length` positions in a batch, if there are `count` rows in total.

    The limits are those of `make_buckets`.
    """
    max_rows = tokens_per_batch // length
    multiple = multiple_of if max_rows < _ROUNDED_ROWS else math.lcm(multiple_of, 8)
    rows = max_rows // multiple * multiple
    if overflow:
        rows = max(rows, multiple)
    if rows < 1:
        raise DataError(
            f"data.tokens_per_batch={tokens_per_batch} does not hold {multiple_of} rows of "
            f"{length} tokens: raise it to {multiple_of * length}, or lower data.max_length"
        )
    # The same number of batches, all equally full, instead of a nearly empty last one.
    rows = -(-count // -(-count // rows))
    return -(-rows // multiple) * multiple


def _optimal_boundaries(counts: np.ndarray, count: int) -> np.ndarray:
    """Bucket end lengths that minimize the sum of bucket lengths over all pairs."""
    lengths = np.flatnonzero(counts)
    pairs = np.concatenate([[0], np.cumsum(counts[lengths])])
    n = len(lengths)
    cost = np.full(n + 1, np.inf)
    cost[0] = 0
    best_starts = []
    for _ in range(min(count, n)):
        # Distinct lengths start .. end - 1 share one bucket that ends at lengths[end - 1].
        added = (pairs[None, 1:] - pairs[:-1, None]) * lengths[None, :].astype(float)
        total = np.where(
            np.arange(n)[:, None] <= np.arange(n)[None], cost[:-1, None] + added, np.inf
        )
        best_starts.append(total.argmin(0))
        cost = np.concatenate([[np.inf], total.min(0)])
    ends, end = [], n
    for starts in reversed(best_starts):
        ends.append(lengths[end - 1])
        end = starts[end - 1]
    return np.array(ends[::-1])
