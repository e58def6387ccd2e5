"""Tokenizer of fairseq's models: words, split by BPE merges if there are any.

A line of a dictionary file has a word and its count; ids follow the order of lines, after fairseq's
special ids. Here Heed's special ids come first, then fairseq's `<s>`: an ordinary word that is not
visible in text, since fairseq's outputs begin with the end symbol.
"""

import json
from collections.abc import Sequence
from typing import Literal

import msgspec

from data.batch import EOS, UNK
from data.bpe import SEPARATOR, BPEMerges, undo_bpe
from data.errors import DataError
from data.json_file import decode_json
from data.tokenizer import WordListTokenizer

FORMAT = "heed dictionary 1"
_FAIRSEQ_BOS = UNK + 1
_OVERWRITE = "#fairseq:overwrite"  # marks a repeated word, with another id


class _Content(msgspec.Struct):
    """The stored format."""

    format: Literal["heed dictionary 1"]
    words: list[str]
    merges: str | None


class DictionaryTokenizer(WordListTokenizer):
    """One side: its words and its merges."""

    def __init__(self, model: bytes):
        """Read the output of `make`; raise DataError for other content."""
        self._model = model
        saved = decode_json(model, _Content, "not a Heed vocabulary")
        self._merges = None if saved.merges is None else BPEMerges(saved.merges)
        self._words = ["<pad>", "<s>", "</s>", "<unk>", "<s>", *saved.words]
        # Padding that is spelled out in a text is unknown: as PAD it would not count as text.
        self._ids = {word: id for id, word in enumerate(self._words) if id >= EOS}

    def __reduce__(self):
        return DictionaryTokenizer, (self._model,)

    @classmethod
    def make(cls, words: Sequence[str], merges: str | None) -> "DictionaryTokenizer":
        """Build from the words of a dictionary file, in order, and the text of a merges file."""
        if merges is not None:
            BPEMerges(merges)  # raises DataError
        content = {"format": FORMAT, "words": list(words), "merges": merges}
        return cls(json.dumps(content, ensure_ascii=False).encode())

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without BOS or EOS, except those spelled out in it."""
        if self._merges is not None:
            sentences = [self._merges.apply(sentence) for sentence in sentences]
        return [[self._ids.get(word, UNK) for word in text.split()] for text in sentences]

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each list of ids, without PAD, BOS and EOS.

        Unknown words are shown, as in fairseq's outputs.
        """
        visible = lambda id: id > EOS and id != _FAIRSEQ_BOS  # noqa: E731
        words = ([self._words[i] for i in ids if visible(i)] for ids in sentences)
        return [undo_bpe(" ".join(sentence_words)) for sentence_words in words]

    def surfaces(self) -> list[bytes] | None:
        """Return the bytes that each id adds to a text (data/token_bytes.py), spaces included."""
        words = (f"{name} ".removesuffix(f"{SEPARATOR} ") for name in self._words)
        encoded = [word.encode(errors="replace") for word in words]
        return [b"" if id <= _FAIRSEQ_BOS else word for id, word in enumerate(encoded)]


def read_words(text: str) -> list[str]:
    """Parse the words of a dictionary file, in order; raises DataError, naming the line."""
    words: list[str] = []
    entries = {"<s>", "<pad>", "</s>", "<unk>"}
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        overwrites = line.rstrip().endswith(f" {_OVERWRITE}")
        word, space, count = line.rstrip().removesuffix(_OVERWRITE).rstrip().rpartition(" ")
        if not space or not count.removeprefix("-").isdecimal():
            raise DataError(f"line {number}: expected a word and a count, got {line[:40]!r}")
        if word in entries and not overwrites:
            raise DataError(
                f"line {number}: duplicate entry {word!r}: token ids would be ambiguous"
            )
        entries.add(word)
        words.append(word)
    return words
