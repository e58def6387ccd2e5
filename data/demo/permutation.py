"""A seeded bijection of range(count) onto itself, computed index by index."""

import hashlib
import math


class Permutation:
    """A bijection of range(count) onto itself: a Feistel network over the next larger rectangle."""

    ROUNDS = 4

    def __init__(self, count: int, key: str) -> None:
        self.count = count
        self.rows = math.isqrt(count - 1) + 1
        self.columns = -(-count // self.rows)
        names = (f"{key}/{turn}".encode() for turn in range(2 * self.ROUNDS))
        digests = [int.from_bytes(hashlib.sha256(name).digest()[:8], "big") for name in names]
        self.keys = tuple(zip(digests[::2], digests[1::2], strict=True))

    def __call__(self, index: int) -> int:
        """Return the image of `index`, by cycle walking: repeat until it is inside the range."""
        while True:
            row, column = divmod(index, self.columns)
            for column_key, row_key in self.keys:
                row = (row + _mix(column ^ column_key)) % self.rows
                column = (column + _mix(row ^ row_key)) % self.columns
            index = row * self.columns + column
            if index < self.count:
                return index


def _mix(number: int) -> int:
    """Return 64 well mixed bits: the finalizer of SplitMix64 (Steele et al., 2014)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31
