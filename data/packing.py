"""Packing: several pairs in one row, with little padding.

The lengths that share a row are chosen once, from the number of pairs of each length. The pairs of
these lengths are redrawn in every epoch. So all epochs have the same number of rows.
"""

from typing import NamedTuple

import numpy as np


class PackedRows(NamedTuple):
    """Slots for pairs, [n] each: `row`, ascending, and `position` in the pairs sorted by length."""

    row: np.ndarray
    position: np.ndarray
    count: int  # type: ignore[assignment]  # number of rows; hides tuple.count


def row_lengths(source: np.ndarray, target: np.ndarray, pairs: int = 1) -> tuple[int, int]:
    """Lengths (source, target) of a row whose two sides fill up equally fast.

    The longest pair fits, and so do `pairs` pairs of mean length.
    """
    ratio = target.sum() / source.sum()
    length = max(source.max(), int(pairs * source.mean()))
    target_length = max(target.max(), round(length * ratio))
    return max(int(length), round(target_length / ratio)), int(target_length)


def pack(source: np.ndarray, target: np.ndarray, size: tuple[int, int]) -> PackedRows:
    """Pack pairs of these lengths [n] into rows of `size` (source, target) positions.

    Greedy: each row starts with the longest remaining pair, then repeatedly takes the pair that
    fills most and leaves both sides equally full. The row is repeated as long as there are enough
    pairs of these lengths. About 2% of the positions stay empty (experiments/LOG.md).
    """
    # A shape is the two lengths of a pair.
    shapes, counts = np.unique(np.stack([source, target], 1), axis=0, return_counts=True)
    axes = np.array(size)
    remaining = np.lexsort((shapes.sum(1), shapes.max(1)))[::-1]  # shapes with unpacked pairs
    groups, counts = [], counts.copy()
    while len(remaining):
        lengths, available = shapes[remaining], counts[remaining]
        used, free, members, shape = np.zeros(len(remaining), int), axes, [], 0
        while True:
            used[shape] += 1
            members.append(int(remaining[shape]))
            free = free - lengths[shape]
            fitting = np.flatnonzero((lengths <= free).all(1) & (used < available))
            if not len(fitting):
                break
            fractions = (free - lengths[fitting]) / axes
            uneven = np.abs(fractions[:, 0] - fractions[:, 1]) * axes.mean()
            shape = fitting[(lengths[fitting].sum(1) - uneven).argmax()]
        packed = used > 0
        rows = int((available[packed] // used[packed]).min())
        groups.append((members, rows))
        counts[remaining[packed]] -= rows * used[packed]
        remaining = remaining[counts[remaining] > 0]
    return _slots(groups)


def _slots(groups: list[tuple[list[int], int]]) -> PackedRows:
    rows_of_groups, shapes_of_groups, count = [], [], 0
    for members, rows in groups:
        rows_of_groups.append(np.repeat(np.arange(count, count + rows), len(members)))
        shapes_of_groups.append(np.tile(members, rows))
        count += rows
    row, shape = np.concatenate(rows_of_groups), np.concatenate(shapes_of_groups)
    # The slots of a shape get the positions of its pairs in the sorted order, one by one.
    position = np.empty(len(shape), np.int64)
    position[np.argsort(shape, kind="stable")] = np.arange(len(shape))
    return PackedRows(row, position, count)
