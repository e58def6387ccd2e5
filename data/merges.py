"""Subwords by a list of merges, as subword-nmt applies one (Sennrich et al. 2016, section 3.2).

A word begins as its letters, the last of them marked as an end. Of all pairs of neighbours the one
that stands first in the list becomes one symbol, everywhere in the word, until no pair is listed.
All subwords of a word but its last carry "@@". subword-nmt itself is no longer kept, and brings
packages that nothing here needs: the tests hold both equal.
"""

import math
import re
from functools import lru_cache

from data.corpus import DataError

SEPARATOR = "@@"
_END = "</w>"
_KEPT = 1 << 16  # words whose subwords are remembered
_VERSION = re.compile(r"#version: ?0\.([12])(\.0+)*")


class Merges:
    """A list of merges, from the text of its file."""

    def __init__(self, text: str):
        """Raises DataError, naming the line, where it is no such list."""
        lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
        version = "1"  # the end of a word is a symbol of its own
        if first := lines[0].startswith("#version:"):
            found = _VERSION.fullmatch(lines[0].strip())
            if not found:
                raise DataError(f"line 1: {lines[0]} is not supported, only 0.1 and 0.2")
            version = found[1]
        self._ranks: dict[tuple[str, ...], float] = {}
        for number, line in enumerate(lines[first:], 1 + first):
            pair = tuple(line.strip("\r\n ").split(" "))
            if len(pair) != 2:
                raise DataError(
                    f"line {number}: a merge is of two symbols, as subword-nmt writes it, but this "
                    f"is {line[:40]!r}"
                )
            self._ranks.setdefault(pair, number)
        self._apart = version == "1"
        self._cut = lru_cache(_KEPT)(self._pieces)

    def apply(self, text: str) -> str:
        """The text with each word as its subwords, "lower" as "low@@ er"."""
        words = text.strip("\r\n ").split(" ")
        return " ".join(piece for word in words if word for piece in self._cut(word))

    def _pieces(self, word: str) -> tuple[str, ...]:
        if len(word) == 1:
            return (word,)
        parts = [*word, _END] if self._apart else [*word[:-1], word[-1] + _END]
        while len(parts) > 1:
            pairs = [*zip(parts, parts[1:], strict=False)]
            best = min(pairs, key=lambda pair: self._ranks.get(pair, math.inf))
            if best not in self._ranks:
                break
            parts = _joined(parts, best)
        if parts[-1] == _END:
            del parts[-1]
        else:
            parts[-1] = parts[-1].removesuffix(_END)
        return (*(part + SEPARATOR for part in parts[:-1]), parts[-1])


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts with each such pair as one; of three alike the first two."""
    found: list[str] = []
    at = 0
    while at < len(parts):
        size = 2 if tuple(parts[at : at + 2]) == pair else 1
        found.append("".join(parts[at : at + size]))
        at += size
    return found


def joined(text: str) -> str:
    """Subwords as the words that they are of."""
    return f"{text} ".replace(f"{SEPARATOR} ", "").rstrip()
