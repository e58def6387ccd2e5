"""Byte pair encoding by a list of merges, as in subword-nmt (Sennrich et al. 2016).

A word begins as its letters, the last of them marked as an end. Of all pairs of neighbours the one
that stands first in the list becomes one symbol, everywhere in the word, until no pair is listed.
All subwords of a word but its last carry "@@". subword-nmt itself is no longer kept, and brings
packages that nothing here needs: the tests hold both equal.
"""

import re
from functools import lru_cache
from heapq import heapify, heappop, heappush

from data.errors import DataError
from data.printable import excerpt

SEPARATOR = "@@"
_END = "</w>"
_KEPT = 1 << 16  # words whose subwords are cached
_LONGEST_KEPT = 64  # letters of a cached word: the cache is bounded in bytes, too
_VERSION = re.compile(r"#version: ?0\.([12])(\.0+)*")


class BPEMerges:
    """A list of merges, from the text of its file."""

    def __init__(self, text: str):
        """Raises DataError, naming the line, where it is no such list."""
        lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
        version = "1"  # the end of a word is a symbol of its own
        if first := lines[0].startswith("#version:"):
            found = _VERSION.fullmatch(lines[0].strip())
            if not found:
                raise DataError(f"line 1: {excerpt(lines[0])} is not supported, only 0.1 and 0.2")
            version = found[1]
        self._ranks: dict[tuple[str, ...], int] = {}
        for number, line in enumerate(lines[first:], 1 + first):
            pair = tuple(line.strip("\r\n ").split(" "))
            if len(pair) != 2:
                raise DataError(
                    f"line {number}: a merge is of two symbols, as subword-nmt writes it, but this "
                    f"is {line[:40]!r}"
                )
            self._ranks.setdefault(pair, number)
        self._apart = version == "1"
        self._cached = lru_cache(_KEPT)(self._cut)

    def apply(self, text: str) -> str:
        """The text with each word as its subwords, "lower" as "low@@ er"."""
        words = text.strip("\r\n ").split(" ")
        return " ".join(piece for word in words if word for piece in self._subwords(word))

    def _subwords(self, word: str) -> tuple[str, ...]:
        return self._cached(word) if len(word) <= _LONGEST_KEPT else self._cut(word)

    def _cut(self, word: str) -> tuple[str, ...]:
        if len(word) == 1:
            return (word,)
        parts = [*word, _END] if self._apart else [*word[:-1], word[-1] + _END]
        parts = _merged(parts, self._ranks)
        if parts[-1] == _END:
            del parts[-1]
        else:
            parts[-1] = parts[-1].removesuffix(_END)
        return (*(part + SEPARATOR for part in parts[:-1]), parts[-1])


def _merged(parts: list[str], ranks: dict[tuple[str, ...], int]) -> list[str]:
    """The symbols of one word after all merges, in time N log N of its N letters.

    All pairs of the lowest rank are joined in one round, from the left: of three symbols alike the
    first two. Pairs that a round makes wait for the next one, even where their rank is lower. A
    position in the queue is out of date where the symbol there, or the one after it, has changed.
    """
    end = len(parts)
    symbols = [*parts, ""]  # "": joined to the one on its left, or the end
    after, before = [*range(1, end + 1)], [*range(-1, end)]
    places: dict[int, list[int]] = {}  # of the pairs of each rank
    for at, pair in enumerate(zip(parts, parts[1:], strict=False)):
        if (rank := ranks.get(pair)) is not None:
            places.setdefault(rank, []).append(at)
    queue = [*places]
    heapify(queue)
    while queue:
        lowest = heappop(queue)
        for at in sorted(places.pop(lowest)):
            right = after[at]
            if ranks.get((symbols[at], symbols[right])) != lowest:
                continue
            symbols[at] += symbols[right]
            symbols[right] = ""
            after[at] = following = after[right]
            before[following] = at
            for left, pair in (
                (before[at], (symbols[before[at]], symbols[at])),
                (at, (symbols[at], symbols[following])),
            ):
                if (rank := ranks.get(pair)) is not None:
                    if rank not in places:
                        places[rank] = []
                        heappush(queue, rank)
                    places[rank].append(left)
    return [symbol for symbol in symbols if symbol]


def joined(text: str) -> str:
    """Subwords as the words that they are of."""
    return f"{text} ".replace(f"{SEPARATOR} ", "").rstrip()
