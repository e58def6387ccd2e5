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
        """Return the image of `index`; what falls outside the range walks on until it is inside."""
        while True:
            row, column = divmod(index, self.columns)
            for first, second in self.keys:
                row = (row + _mix(column ^ first)) % self.rows
                column = (column + _mix(row ^ second)) % self.columns
            index = row * self.columns + column
            if index < self.count:
                return index


def _mix(number: int) -> int:
    """Return 64 well mixed bits: the finalizer of SplitMix64 (Steele et al., 2014)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31
