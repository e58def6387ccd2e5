"""Bucketing: a few fixed batch shapes with little padding for pairs of all lengths.

Lengths count EOS. Each shape costs one compilation, so there are few; each pair goes to the
first bucket that holds both its sides.
"""

import math
from typing import NamedTuple

import numpy as np

from data.errors import DataError

_MANY = 64  # rows: an eighth of them at most is lost to a multiple of 8


class Bucket(NamedTuple):
    """One batch shape: [rows, source] and [rows, target] ids."""

    rows: int
    source: int
    target: int

    def with_rows(self, multiple_of: int) -> "Bucket":
        """The same with the next multiple of so many rows."""
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
    """At most `count` buckets for pairs of these lengths [n], and each pair's bucket number [n].

    Cuts are placed on max(source, target) where they leave the fewest padded positions (exactly,
    by dynamic programming). A batch has at most `tokens_per_batch` positions a side, and a
    multiple of `multiple_of` rows; of 8, too, where they are many, so that meshes of up to that
    many devices share them evenly. Where `multiple_of` rows alone are more, they make the batch
    with `overflow`, and raise DataError without.
    """
    longest = np.maximum(source, target)
    number = np.bincount(longest)  # how many pairs have each length
    ends = _optimal_boundaries(number, count)
    which = np.searchsorted(ends, longest)
    buckets = []
    for i in range(len(ends)):
        inside = which == i
        sides = int(source[inside].max()), int(target[inside].max())
        pairs = int(inside.sum())
        rows = rows_per_batch(pairs, max(sides), tokens_per_batch, multiple_of, overflow)
        buckets.append(Bucket(rows, *sides))
    return buckets, which


def rows_per_batch(
    count: int, length: int, tokens_per_batch: int, multiple_of: int, overflow: bool = False
) -> int:
    """How many rows of `length` positions make a batch, where there are `count` in all.

    As `make_buckets` has it.
    """
    most = tokens_per_batch // length
    multiple = multiple_of if most < _MANY else math.lcm(multiple_of, 8)
    rows = most // multiple * multiple
    if overflow:
        rows = max(rows, multiple)
    if rows < 1:
        raise DataError(
            f"data.tokens_per_batch={tokens_per_batch} does not hold {multiple_of} rows of "
            f"{length} tokens: raise it to {multiple_of * length}, or lower data.max_length"
        )
    # The same number of batches, each as full as the others, rather than a last one of a few.
    rows = -(-count // -(-count // rows))
    return -(-rows // multiple) * multiple


def _optimal_boundaries(number: np.ndarray, count: int) -> np.ndarray:
    """Lengths at which buckets end so that the sum of bucket length over all pairs is least."""
    lengths = np.flatnonzero(number)
    pairs = np.concatenate([[0], np.cumsum(number[lengths])])
    n = len(lengths)
    cost = np.full(n + 1, np.inf)
    cost[0] = 0
    back = []
    for _ in range(min(count, n)):
        # Pairs start .. end - 1 (by distinct length) in one bucket that ends at lengths[end - 1].
        whole = (pairs[None, 1:] - pairs[:-1, None]) * lengths[None, :].astype(float)
        total = np.where(
            np.arange(n)[:, None] <= np.arange(n)[None], cost[:-1, None] + whole, np.inf
        )
        back.append(total.argmin(0))
        cost = np.concatenate([[np.inf], total.min(0)])
    ends, end = [], n
    for choice in reversed(back):
        ends.append(lengths[end - 1])
        end = choice[end - 1]
    return np.array(ends[::-1])
