"""Sentence pairs: the corpus protocol, pairs in memory, evenly spaced subsets."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

SPLITS = ("train", "valid", "test")


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


class Corpus(Protocol):
    """Sentence pairs by index, from 0 up to the length; IndexError beyond."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


class ParallelText:
    """Sentence pairs held in memory.

    `files` are the files of the two sides, if they come from files, and `first_line` is the line
    number of the first pair.
    """

    def __init__(
        self,
        source: Sequence[str],
        target: Sequence[str],
        files: tuple[str, str] | None = None,
        first_line: int = 1,
    ):
        self.source, self.target = source, target
        self.files, self.first_line = files, first_line

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self.source):
            raise IndexError(index)
        return Pair(self.source[index], self.target[index])

    def line(self, index: int) -> int:
        """Line number of a pair in its file."""
        return self.first_line + index


class Subset:
    """`count` evenly spaced pairs of a corpus; all pairs if it has fewer.

    `files` are those of the corpus, if it has any.
    """

    def __init__(self, pairs: Corpus, count: int):
        self._pairs, self._count = pairs, min(count, len(pairs))
        self.files = getattr(pairs, "files", None)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._pairs[self._source_index(index)]

    def line(self, index: int) -> int:
        """Line number of a pair, or its number in the corpus, from 1, without files."""
        return line_number(self._pairs, self._source_index(index))

    def _source_index(self, index: int) -> int:
        return index * len(self._pairs) // self._count


def line_number(pairs: Corpus, index: int) -> int:
    """Line number of a pair in its file, or its number in the corpus, from 1, without files."""
    return pairs.line(index) if hasattr(pairs, "line") else index + 1
