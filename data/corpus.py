"""Corpora: the demo grammar, local text, TSV, JSON lines, or a TFDS set.

A source is anything with a length and pairs by number, so a place in the data is one integer.
"""

import difflib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from data.printable import printable

SPLITS = ("train", "valid", "test")
KINDS = ("demo", "text", "tsv", "jsonl")


class DataError(ValueError):
    """Data that cannot be used; the message is one line that says where and what to do."""

    def __init__(self, message: str):
        # Names and values from files may hold line breaks: the message is one line to all readers.
        super().__init__(printable(message))


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


class Corpus(Protocol):
    """Sentence pairs by number, 0 up to the length; IndexError beyond."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


class Pairs:
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


class Some:
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
        return line_of(self._pairs, self._there(index))

    def _there(self, index: int) -> int:
        return index * len(self._pairs) // self._count


def line_of(pairs: Corpus, index: int) -> int:
    """The number of the line that a pair has in its file, or among all pairs, from 1."""
    return pairs.line(index) if hasattr(pairs, "line") else index + 1


def open_corpus(
    kind: str,
    split: str,
    *,
    path: str = "",
    source_language: str = "en",
    target_language: str = "de",
    seed: int = 0,
) -> Corpus:
    """The pairs of one split ("train", "valid" or "test").

    `kind` is "demo"; "text", "tsv" or "jsonl" with `path` a folder of {split}.{language},
    {split}.tsv or {split}.jsonl, plain or .gz, or for text explicit files as
    "train=a.en,a.de;valid=b.en,b.de"; or the name of a TFDS translation set, known by its slash
    ("wmt14_translate/de-en"), with `path` the TFDS folder if not the usual one. Raises DataError.
    """
    from data import text, tfds  # they know this module's Pair and DataError

    languages = source_language, target_language
    if split not in SPLITS:
        raise DataError(f"split={split!r} is not one of: {', '.join(SPLITS)}")
    if "/" in kind:
        return tfds.read(kind, split, path, languages)
    if kind == "demo":
        from data import demo  # its tables are built on import, for nothing else

        return demo.Demo(split, seed, *languages)
    readers = {"text": text.read_text, "tsv": text.read_tsv, "jsonl": text.read_jsonl}
    if kind not in readers:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = (
            f"did you mean {near[0]}?" if near else "or a TFDS name such as wmt14_translate/de-en"
        )
        raise DataError(f"data.source={kind!r} is not one of: {', '.join(KINDS)}; {hint}")
    if not path:
        raise DataError(f"data.source={kind} needs --config.data.path=DIR")
    return readers[kind](path, split, languages)
