"""Byte pair encoding (BPE) with a list of merges, as in subword-nmt (Sennrich et al. 2016).

A word starts as its letters, with the last one marked as the end. The adjacent pair that comes
first in the list is merged everywhere in the word; this repeats until no pair is in the list. All
subwords of a word except the last end in "@@". subword-nmt itself is no longer maintained, and
depends on packages that nothing else needs; the tests check that both agree.
"""

import re
from functools import lru_cache
from heapq import heapify, heappop, heappush

from data.errors import DataError
from data.printable import excerpt

SEPARATOR = "@@"
_END = "</w>"
_CACHE_SIZE = 1 << 16  # words whose subwords are cached
_MAX_CACHED_LETTERS = 64  # letters of a cached word: this bounds the cache in bytes
_VERSION = re.compile(r"#version: ?0\.([12])(\.0+)*")


class BPEMerges:
    """A list of BPE merges, parsed from the text of its file."""

    def __init__(self, text: str):
        """Parse the list; raise DataError, naming the line, if it is not a list of merges."""
        lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
        version = "1"  # the end of a word is a separate symbol
        if has_header := lines[0].startswith("#version:"):
            match = _VERSION.fullmatch(lines[0].strip())
            if not match:
                raise DataError(f"line 1: {excerpt(lines[0])} is not supported, only 0.1 and 0.2")
            version = match[1]
        self._ranks: dict[tuple[str, ...], int] = {}
        for number, line in enumerate(lines[has_header:], 1 + has_header):
            pair = tuple(line.strip("\r\n ").split(" "))
            if len(pair) != 2:
                raise DataError(
                    f"line {number}: expected a merge of two symbols, as in subword-nmt, got "
                    f"{line[:40]!r}"
                )
            self._ranks.setdefault(pair, number)
        self._separate_end = version == "1"
        self._cached = lru_cache(_CACHE_SIZE)(self._split)

    def apply(self, text: str) -> str:
        """Split each word of a text into subwords: "lower" becomes "low@@ er"."""
        words = text.strip("\r\n ").split(" ")
        return " ".join(subword for word in words if word for subword in self._subwords(word))

    def _subwords(self, word: str) -> tuple[str, ...]:
        return self._cached(word) if len(word) <= _MAX_CACHED_LETTERS else self._split(word)

    def _split(self, word: str) -> tuple[str, ...]:
        if len(word) == 1:
            return (word,)
        symbols = [*word, _END] if self._separate_end else [*word[:-1], word[-1] + _END]
        symbols = _apply_merges(symbols, self._ranks)
        if symbols[-1] == _END:
            del symbols[-1]
        else:
            symbols[-1] = symbols[-1].removesuffix(_END)
        return (*(symbol + SEPARATOR for symbol in symbols[:-1]), symbols[-1])


def _apply_merges(letters: list[str], ranks: dict[tuple[str, ...], int]) -> list[str]:
    """The symbols of one word after all merges, in O(N log N) for its N letters.

    Each round merges all pairs of the lowest rank, from the left: of three equal symbols the first
    two are merged. Pairs created in a round wait for the next one, even if their rank is lower. A
    queued position is stale if the symbol at it, or the next one, has changed.
    """
    end = len(letters)
    symbols = [*letters, ""]  # "": merged into its left neighbor, or the end
    after, before = [*range(1, end + 1)], [*range(-1, end)]
    positions: dict[int, list[int]] = {}  # positions of the pairs of each rank
    for position, pair in enumerate(zip(letters, letters[1:], strict=False)):
        if (rank := ranks.get(pair)) is not None:
            positions.setdefault(rank, []).append(position)
    queue = [*positions]
    heapify(queue)
    while queue:
        lowest = heappop(queue)
        for position in sorted(positions.pop(lowest)):
            next_position = after[position]
            if ranks.get((symbols[position], symbols[next_position])) != lowest:
                continue
            symbols[position] += symbols[next_position]
            symbols[next_position] = ""
            after[position] = following = after[next_position]
            before[following] = position
            for start, pair in (
                (before[position], (symbols[before[position]], symbols[position])),
                (position, (symbols[position], symbols[following])),
            ):
                if (rank := ranks.get(pair)) is not None:
                    if rank not in positions:
                        positions[rank] = []
                        heappush(queue, rank)
                    positions[rank].append(start)
    return [symbol for symbol in symbols if symbol]


def undo_bpe(text: str) -> str:
    """Join subwords into words."""
    return f"{text} ".replace(f"{SEPARATOR} ", "").rstrip()
