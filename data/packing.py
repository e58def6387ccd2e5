"""Packing: several pairs in one row, so that there is little padding.

Which lengths share a row is decided once, from the number of pairs of each length. Which pairs of
these lengths share a row is drawn again in every epoch. So all epochs have the same number of rows.
"""

from typing import NamedTuple

import numpy as np


class PackedRows(NamedTuple):
    """Slots for pairs, [n] each: `row`, ascending, and `place` among the pairs sorted by length."""

    row: np.ndarray
    place: np.ndarray
    count: int  # type: ignore[assignment]  # of rows; no tuple's method


def room(source: np.ndarray, target: np.ndarray, pairs: int = 1) -> tuple[int, int]:
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
    fills most and leaves both sides equally full. The row is repeated while there are enough pairs
    of these lengths. About 2% of the positions stay empty (experiments/LOG.md).
    """
    kinds, number = np.unique(np.stack([source, target], 1), axis=0, return_counts=True)
    axes = np.array(size)
    remaining = np.lexsort((kinds.sum(1), kinds.max(1)))[::-1]  # kinds with unpacked pairs
    groups, number = [], number.copy()
    while len(remaining):
        lengths, available = kinds[remaining], number[remaining]
        used, room, members, kind = np.zeros(len(remaining), int), axes, [], 0
        while True:
            used[kind] += 1
            members.append(int(remaining[kind]))
            room = room - lengths[kind]
            fitting = np.flatnonzero((lengths <= room).all(1) & (used < available))
            if not len(fitting):
                break
            free = (room - lengths[fitting]) / axes
            uneven = np.abs(free[:, 0] - free[:, 1]) * axes.mean()
            kind = fitting[(lengths[fitting].sum(1) - uneven).argmax()]
        taken = used > 0
        rows = int((available[taken] // used[taken]).min())
        groups.append((members, rows))
        number[remaining[taken]] -= rows * used[taken]
        remaining = remaining[number[remaining] > 0]
    return _slots(groups)


def _slots(groups: list[tuple[list[int], int]]) -> PackedRows:
    numbers, kinds, count = [], [], 0
    for members, rows in groups:
        numbers.append(np.repeat(np.arange(count, count + rows), len(members)))
        kinds.append(np.tile(members, rows))
        count += rows
    row, kind = np.concatenate(numbers), np.concatenate(kinds)
    # The slots of a kind take the places of its pairs in the sorted order, one by one.
    place = np.empty(len(kind), np.int64)
    place[np.argsort(kind, kind="stable")] = np.arange(len(kind))
    return PackedRows(row, place, count)
