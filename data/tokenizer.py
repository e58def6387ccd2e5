"""Subword vocabularies (paper 5.1): train, encode, decode, by SentencePiece.

A vocabulary learned here is lossless: any line of text comes back from its ids as it was.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from data.atomic_write import write_atomic
from data.batch import BOS, EOS, PAD, UNK
from data.errors import DataError
from data.library_errors import library_errors
from data.token_bytes import piece_surface

FLAG = "--config.data.vocab_size"
MAX_SENTENCES = 2_000_000
VOCABULARY_FILES = "tokenizer.model", "tokenizer.source.model", "tokenizer.target.model"
MAX_BYTES = 1 << 30  # of a vocabulary's file
CANNOT_ENCODE = "the vocabulary cannot cut this text"
CANNOT_DECODE = "the vocabulary cannot join these pieces"

# SentencePiece writes a space as U+2581, so one that is really in the text is written as a
# private-use character and a letter, and that character itself likewise.
_SPACE, _ESCAPE = "\u2581", "\ue000"
_TO_ESCAPED = str.maketrans({_SPACE: _ESCAPE + "u", _ESCAPE: _ESCAPE + "e"})
_FROM_ESCAPED = {_ESCAPE + "u": _SPACE, _ESCAPE + "e": _ESCAPE}
_ESCAPED = re.compile(f"{_ESCAPE}[ue]")


class Tokenizer:
    """A SentencePiece model whose ids begin with PAD, BOS, EOS and UNK, whatever its own are.

    `model_ids` [vocab_size] int32 has the model's own id for each of ours, -1 where it has none.
    `prefix` are the ids that `encode` begins every text with, of kinds that have some.
    """

    prefix: tuple[int, ...] = ()

    def __init__(self, model: bytes):
        """Reads a serialized model; raises DataError where it is not one."""
        self._model = model
        self._processor = sp = processor(model)
        special = [sp.pad_id(), sp.bos_id(), sp.eos_id(), sp.unk_id()]
        others = [i for i in range(sp.get_piece_size()) if i not in special]
        self.model_ids = np.array(special + others, np.int32)
        self._ours = np.full(sp.get_piece_size(), UNK, np.int32)
        known = self.model_ids >= 0
        self._ours[self.model_ids[known]] = np.flatnonzero(known)
        self._same = np.array_equal(self.model_ids, np.arange(len(self.model_ids)))
        # A ready-made model may know no bytes: to it the escape would be an unknown character.
        probe = _ESCAPE + "u"
        self._escapes = sp.decode(sp.encode(probe)) == probe

    def __reduce__(self):
        return Tokenizer, (self._model,)

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        vocab_size: int,
        kind: str = "bpe",
        max_sentences: int = MAX_SENTENCES,
    ) -> "Tokenizer":
        """Learns a vocabulary of `vocab_size` ids from text; the same text gives the same bytes.

        Of more than `max_sentences` evenly spaced ones are taken, at least half as many. Raises
        DataError where the text supports no vocabulary of that size, saying which it does.
        """
        if kind not in ("bpe", "unigram"):
            raise DataError(
                f"--config.data.tokenizer {kind!r} is not known: there are bpe, unigram"
            )
        model = io.BytesIO()
        escaped = (sentence.translate(_TO_ESCAPED) for sentence in sentences)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(evenly_spaced(escaped, max_sentences)),
                model_writer=model,
                model_type=kind,
                vocab_size=vocab_size,
                byte_fallback=True,
                character_coverage=0.9995,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                split_digits=True,
                max_sentence_length=1 << 30,  # the default drops long lines without a word
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNK,
                num_threads=4,  # unigram's sums depend on it, so it must not follow the machine
                minloglevel=3,
            )
        except RuntimeError as error:
            raise _learning_error(str(error), vocab_size) from None
        return cls(model.getvalue())

    def save(self, path: str | os.PathLike):
        """Writes the model to a file, whole or not at all."""
        write_atomic(path, self._model)

    def to_bytes(self) -> bytes:
        """Returns the serialized SentencePiece model."""
        return self._model

    def digest(self) -> str:
        """Returns a hexadecimal digest by which two vocabularies can be told apart."""
        return hashlib.sha256(self._model).hexdigest()

    @property
    def vocab_size(self) -> int:
        """The number of ids, PAD, BOS, EOS and UNK included."""
        return len(self.model_ids)

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each line of text, without BOS or EOS."""
        if self._escapes:
            sentences = [sentence.translate(_TO_ESCAPED) if _rare(sentence) else sentence
                         for sentence in sentences]  # fmt: skip
        with library_errors(CANNOT_ENCODE):
            encoded = self._processor.encode(list(sentences))
        return encoded if self._same else [self._ours[ids].tolist() for ids in encoded]

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Returns the text of each list of ids, PAD, BOS, EOS and UNK left out.

        It is always one line: a line break, which no line of text encodes to, becomes a space.
        """
        plain = [self.model_ids[[i for i in ids if i > UNK]].tolist() for ids in sentences]
        with library_errors(CANNOT_DECODE):
            texts = [text.replace("\n", " ") for text in self._processor.decode(plain)]
        if not self._escapes:
            return texts
        return [_ESCAPED.sub(lambda found: _FROM_ESCAPED[found[0]], text) for text in texts]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns each id as SentencePiece shows it, a space as U+2581."""
        names = {PAD: "<pad>", BOS: "<s>", EOS: "</s>", UNK: "<unk>"}
        return [names.get(i) or self._processor.id_to_piece(int(self.model_ids[i])) for i in ids]

    def surfaces(self) -> list[bytes] | None:
        """Returns what each id adds to a text (data/token_bytes.py); None where that is not known.

        b"" stands for what no text shows.
        """
        sp, found = self._processor, [b""] * self.vocab_size
        for id in range(UNK + 1, self.vocab_size):
            theirs = int(self.model_ids[id])
            if not (sp.is_control(theirs) or sp.is_unknown(theirs) or sp.is_unused(theirs)):
                found[id] = piece_surface(sp.id_to_piece(theirs), sp.is_byte(theirs))
        return found


def processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """A serialized SentencePiece model, ready to cut and join; raises DataError."""
    found = sentencepiece.SentencePieceProcessor()
    with library_errors("not a SentencePiece model"):
        try:
            found.LoadFromSerializedProto(model)
        except RuntimeError:  # whose text names a line of the library's own
            raise DataError("not a SentencePiece model, or a damaged one") from None
        found.id_to_piece([*range(found.get_piece_size())])  # pieces may be no UTF-8
    return found


def _rare(sentence: str) -> bool:
    return _SPACE in sentence or _ESCAPE in sentence


def evenly_spaced(items: Iterable[str], limit: int) -> list[str]:
    """Returns every k-th item for the smallest k = 1, 2, 4, ... that keeps at most `limit`."""
    kept: list[str] = []
    step = 1
    for index, item in enumerate(items):
        if index % step:
            continue
        if len(kept) == limit:
            del kept[1::2]
            step *= 2
            if index % step:
                continue
        kept.append(item)
    return kept


def _learning_error(message: str, vocab_size: int) -> DataError:
    if found := re.search(r"value <= (\d+)", message):
        return DataError(
            f"{FLAG}={vocab_size} is more than the training text supports: "
            f"at most {FLAG}={found[1]}, or give more text"
        )
    if found := re.search(r"\d+ vs (\d+)", message):
        return DataError(
            f"{FLAG}={vocab_size} is less than the training text needs for its characters: "
            f"at least {FLAG}={found[1]}"
        )
    if "sentences_.empty()" in message:
        return DataError("there is no text to learn a vocabulary from: the training side is empty")
    return DataError(f"no vocabulary could be learned with {FLAG}={vocab_size}: {message}")
