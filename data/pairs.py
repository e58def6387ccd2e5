"""Sentence pairs: the corpus protocol, pairs in memory, evenly spaced subsets."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

SPLITS = ("train", "valid", "test")


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


class Corpus(Protocol):
    """Sentence pairs by number, 0 up to the length; IndexError beyond."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


class ParallelText:
    """Sentence pairs held in memory.

    `files` are the files of the two sides, where they come from files, and `first` is the number of
    the line that the first pair has there.
    """

    def __init__(
        self,
        source: Sequence[str],
        target: Sequence[str],
        files: tuple[str, str] | None = None,
        first: int = 1,
    ):
        self.source, self.target = source, target
        self.files, self.first = files, first

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self.source):
            raise IndexError(index)
        return Pair(self.source[index], self.target[index])

    def line(self, index: int) -> int:
        """The number of the line that a pair has in its file."""
        return self.first + index


class Subset:
    """So many pairs of a source, evenly spaced; all of one that has no more.

    `files` are those of the source, if it has any.
    """

    def __init__(self, pairs: Corpus, count: int):
        self._pairs, self._count = pairs, min(count, len(pairs))
        self.files = getattr(pairs, "files", None)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._pairs[self._there(index)]

    def line(self, index: int) -> int:
        """The number of a pair's line, or of the pair itself, from 1, where there are no lines."""
        return line_number(self._pairs, self._there(index))

    def _there(self, index: int) -> int:
        return index * len(self._pairs) // self._count


def line_number(pairs: Corpus, index: int) -> int:
    """The number of the line that a pair has in its file, or among all pairs, from 1."""
    return pairs.line(index) if hasattr(pairs, "line") else index + 1
