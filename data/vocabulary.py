"""Vocabulary: train, load and save the tokenizers of both sides."""

import hashlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data import fairseq_tokenizer, hf_tokenizer
from data.errors import DataError
from data.fairseq_tokenizer import DictionaryTokenizer
from data.hf_tokenizer import FastTokenizer
from data.marian_tokenizer import MarianTokenizer
from data.pairs import Corpus
from data.regular_file import read_regular
from data.tokenizer import MAX_BYTES, MAX_SENTENCES, Tokenizer

VOCABULARY_FILES = "tokenizer.model", "tokenizer.source.model", "tokenizer.target.model"
# By the format named in the file; a JSON file of another format is Marian's.
_TOKENIZERS: dict[str, type[Tokenizer]] = {
    fairseq_tokenizer.FORMAT: DictionaryTokenizer,
    hf_tokenizer.FORMAT: FastTokenizer,
}


def read_tokenizer(model: bytes) -> Tokenizer:
    """Read the output of `Tokenizer.to_bytes`, of any kind; raises DataError if invalid."""
    if not model.startswith(b"{"):
        return Tokenizer(model)
    for name, kind in _TOKENIZERS.items():
        if model.startswith(f'{{"format": "{name}"'.encode()):
            return kind(model)
    return MarianTokenizer(model)


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Load a tokenizer file of any kind, or any SentencePiece model; DataError if missing."""
    content = read_regular(path, MAX_BYTES)
    try:
        return read_tokenizer(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


class Vocabulary(NamedTuple):
    """The tokenizers of both sides; the same object if they are shared."""

    source: Tokenizer
    target: Tokenizer

    @property
    def shared(self) -> bool:
        """Whether both sides share ids, as in the paper; they may still split text differently."""
        source, target = self
        if source is target or source.vocab_size != target.vocab_size:
            return source is target
        ids = range(source.vocab_size)
        return source.pieces(ids) == target.pieces(ids)

    @classmethod
    def train(
        cls,
        pairs: Corpus,
        vocab_size: int,
        kind: str = "bpe",
        shared: bool = True,
        max_sentences: int = MAX_SENTENCES,
    ) -> "Vocabulary":
        """Train on sentence pairs, normally the training split; DataError as `Tokenizer.train`."""
        # A corpus may have far more pairs than needed, so only a sample of it is read.
        count = min(len(pairs), max_sentences // 2 if shared else max_sentences)
        sample = (pairs[i * len(pairs) // count] for i in range(count))
        if shared:
            tokenizer = Tokenizer.train(itertools.chain.from_iterable(sample), vocab_size, kind)
            return cls(tokenizer, tokenizer)
        sides: Iterable[Iterable] = zip(*sample, strict=True) if count else ((), ())
        return cls(*(Tokenizer.train(side, vocab_size, kind) for side in sides))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Vocabulary":
        """Load the output of `save` from a folder, or a shared model from a file.

        A folder has `tokenizer.model`, or `tokenizer.source.model` and `tokenizer.target.model`;
        DataError if it has neither.
        """
        path = Path(path)
        shared = path / VOCABULARY_FILES[0] if path.is_dir() else path
        separate = [path / name for name in VOCABULARY_FILES[1:]]
        if os.path.lexists(shared):
            tokenizer = load_tokenizer(shared)
            return cls(tokenizer, tokenizer)
        if path.is_dir() and any(map(os.path.lexists, separate)):
            return cls(*map(load_tokenizer, separate))
        raise DataError(f"{shared}: vocabulary not found")

    def save(self, folder: str | os.PathLike):
        """Write the models into a folder, and remove those that they replace."""
        folder = Path(folder)
        shared = {VOCABULARY_FILES[0]: self.source}
        separate = dict(zip(VOCABULARY_FILES[1:], self, strict=True))
        is_shared = self.source is self.target
        new, old = (shared, separate) if is_shared else (separate, shared)
        for name, tokenizer in new.items():
            tokenizer.save(folder / name)
        for name in old:
            (folder / name).unlink(missing_ok=True)

    def digest(self) -> str:
        """Return a hexadecimal digest of both sides."""
        return hashlib.sha256(f"{self.source.digest()} {self.target.digest()}".encode()).hexdigest()
