"""Survey of a split in one pass: hashes, letters, scripts and faults of its lines."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.pairs import Corpus
from experiments.inspection.scripts import script


class Side(NamedTuple):
    """One side of a split: for each line [N] a hash, its number of letters, its script, its faults.

    `scripts` are indices into `names`. `characters` and `words` are totals over all lines.
    """

    hashes: np.ndarray
    letters: np.ndarray
    scripts: np.ndarray
    names: list[str]
    blank: np.ndarray
    broken: np.ndarray
    characters: int
    words: int


class Survey(NamedTuple):
    """Both sides of a split, and for each pair [N] whether the target equals the source."""

    source: Side
    target: Side
    copies: np.ndarray

    def __len__(self) -> int:
        return len(self.copies)

    @property
    def sides(self) -> tuple[Side, Side]:
        """Source and target, by index."""
        return self.source, self.target

    @property
    def pairs(self) -> np.ndarray:
        """Hashes of pairs, [N] uint64."""
        odd = np.uint64(0x9E3779B97F4A7C15)
        return self.source.hashes * odd + self.target.hashes


def survey(pairs: Corpus, progress: Callable[[int], None] | None = None) -> Survey:
    """Read all pairs once; `progress` is called with the number of new pairs."""
    sides = _Reader(len(pairs)), _Reader(len(pairs))
    copies = np.zeros(len(pairs), bool)
    for index in range(len(pairs)):
        source, target = pairs[index]
        sides[0].read(index, source)
        sides[1].read(index, target)
        copies[index] = source == target or source.strip() == target.strip()
        if progress and index % 4096 == 4095:
            progress(4096)
    if progress:
        progress(len(pairs) % 4096)
    source_side, target_side = sides[0].to_side(), sides[1].to_side()
    return Survey(source_side, target_side, copies & ~source_side.blank)


class _Reader:
    """Builder of a `Side`, line by line."""

    def __init__(self, count: int):
        self.hashes = np.empty(count, np.uint64)
        self.letters, self.scripts = np.empty(count, np.int32), np.empty(count, np.int16)
        self.blank, self.broken = np.zeros(count, bool), np.zeros(count, bool)
        self.names: dict[str, int] = {"": 0}
        self.characters = self.words = 0

    def read(self, index: int, line: str) -> None:
        self.hashes[index] = hash(line) & 0xFFFFFFFFFFFFFFFF
        name, self.letters[index] = script(line)
        self.scripts[index] = self.names.setdefault(name, len(self.names))
        words = len(line.split())
        self.characters += len(line)
        self.words += words
        if not words:
            self.blank[index] = True
        elif "\ufffd" in line or not (line.isprintable() or _harmless(line)):
            self.broken[index] = True

    def to_side(self) -> Side:
        return Side(
            self.hashes,
            self.letters,
            self.scripts,
            list(self.names),
            self.blank,
            self.broken,
            self.characters,
            self.words,
        )


def _harmless(line: str) -> bool:
    """Whether a line has no control characters except tabs; all spaces and joiners are fine."""
    return not any((c < " " and c != "\t") or "\x7f" <= c <= "\x9f" for c in line)
