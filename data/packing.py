"""Packing: several pairs in one row, so that there is little padding.

Which lengths share a row is settled once, over the numbers of pairs of each length; which pairs of
those lengths do, anew in every epoch. So epochs have equally many rows.
"""

from typing import NamedTuple

import numpy as np


class PackedRows(NamedTuple):
    """Slots for pairs, [n] each: `row`, ascending, and `place` among the pairs sorted by length."""

    row: np.ndarray
    place: np.ndarray
    count: int  # type: ignore[assignment]  # of rows; no tuple's method


def room(source: np.ndarray, target: np.ndarray, pairs: int = 1) -> tuple[int, int]:
    """Lengths (source, target) of a row, of which both sides fill up alike.

    The longest pair fits, and so do so many `pairs` of mean length.
    """
    ratio = target.sum() / source.sum()
    length = max(source.max(), int(pairs * source.mean()))
    target_length = max(target.max(), round(length * ratio))
    return max(int(length), round(target_length / ratio)), int(target_length)


def pack(source: np.ndarray, target: np.ndarray, size: tuple[int, int]) -> PackedRows:
    """Rows of `size` (source, target) positions for pairs of these lengths [n].

    Row by row, and as many rows alike as there are pairs for: first the longest pair that is left,
    then ever the one that fills most and leaves both sides equally full. Greedy, and a fiftieth
    from full (experiments/LOG.md).
    """
    kinds, number = np.unique(np.stack([source, target], 1), axis=0, return_counts=True)
    axes = np.array(size)
    left = np.lexsort((kinds.sum(1), kinds.max(1)))[::-1]  # the kinds that pairs are left of
    groups, number = [], number.copy()
    while len(left):
        lengths, there = kinds[left], number[left]
        used, room, held, kind = np.zeros(len(left), int), axes, [], 0
        while True:
            used[kind] += 1
            held.append(int(left[kind]))
            room = room - lengths[kind]
            fitting = np.flatnonzero((lengths <= room).all(1) & (used < there))
            if not len(fitting):
                break
            rest = (room - lengths[fitting]) / axes
            uneven = np.abs(rest[:, 0] - rest[:, 1]) * axes.mean()
            kind = fitting[(lengths[fitting].sum(1) - uneven).argmax()]
        some = used > 0
        rows = int((there[some] // used[some]).min())
        groups.append((held, rows))
        number[left[some]] -= rows * used[some]
        left = left[number[left] > 0]
    return _slots(groups)


def _slots(groups: list[tuple[list[int], int]]) -> PackedRows:
    numbers, kinds, count = [], [], 0
    for held, rows in groups:
        numbers.append(np.repeat(np.arange(count, count + rows), len(held)))
        kinds.append(np.tile(held, rows))
        count += rows
    row, kind = np.concatenate(numbers), np.concatenate(kinds)
    # The slots of a kind take its places among the sorted pairs in turn.
    place = np.empty(len(kind), np.int64)
    place[np.argsort(kind, kind="stable")] = np.arange(len(kind))
    return PackedRows(row, place, count)
