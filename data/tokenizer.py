"""Subword vocabularies (paper 5.1) with SentencePiece: train, encode, decode.

A vocabulary trained here is lossless: decoding the ids of any line of text restores the line.
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
MAX_BYTES = 1 << 30  # of a vocabulary's file
CANNOT_ENCODE = "the vocabulary cannot tokenize this text"
CANNOT_DECODE = "the vocabulary cannot decode these tokens"

# SentencePiece writes a space as U+2581, so a U+2581 in the text is escaped as a private-use
# character and a letter; the private-use character itself is escaped in the same way.
_SPACE, _ESCAPE = "\u2581", "\ue000"
_TO_ESCAPED = str.maketrans({_SPACE: _ESCAPE + "u", _ESCAPE: _ESCAPE + "e"})
_FROM_ESCAPED = {_ESCAPE + "u": _SPACE, _ESCAPE + "e": _ESCAPE}
_ESCAPED = re.compile(f"{_ESCAPE}[ue]")


class Tokenizer:
    """A SentencePiece model with ids renumbered to begin with PAD, BOS, EOS and UNK.

    `model_ids` [vocab_size] int32 maps each id to the model's own id, -1 if it has none.
    `prefix` are the ids that `encode` puts before every text, if any.
    """

    prefix: tuple[int, ...] = ()

    def __init__(self, model: bytes):
        """Read a serialized model; raise DataError if it is not one."""
        self._model = model
        self._processor = sp = processor(model)
        special = [sp.pad_id(), sp.bos_id(), sp.eos_id(), sp.unk_id()]
        regular = [i for i in range(sp.get_piece_size()) if i not in special]
        self.model_ids = np.array(special + regular, np.int32)
        self._from_model_id = np.full(sp.get_piece_size(), UNK, np.int32)
        has_model_id = self.model_ids >= 0
        self._from_model_id[self.model_ids[has_model_id]] = np.flatnonzero(has_model_id)
        self._is_identity = np.array_equal(self.model_ids, np.arange(len(self.model_ids)))
        # A pretrained model may lack byte fallback: the escape would be an unknown character.
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
        """Train a vocabulary of `vocab_size` ids on text; the same text gives the same bytes.

        If there are more than `max_sentences`, an evenly spaced sample of at least half as many is
        used. Raises DataError, naming the supported size, if the text does not support this one.
        """
        if kind not in ("bpe", "unigram"):
            raise DataError(f"--config.data.tokenizer={kind!r} is not one of: bpe, unigram")
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
                max_sentence_length=1 << 30,  # the default silently drops long lines
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNK,
                num_threads=4,  # unigram's sums depend on it, so it is fixed on all machines
                minloglevel=3,
            )
        except RuntimeError as error:
            raise _training_error(str(error), vocab_size) from None
        return cls(model.getvalue())

    def save(self, path: str | os.PathLike):
        """Write the model to a file, atomically."""
        write_atomic(path, self._model)

    def to_bytes(self) -> bytes:
        """Return the serialized SentencePiece model."""
        return self._model

    def digest(self) -> str:
        """Return a hexadecimal digest that identifies the vocabulary."""
        return hashlib.sha256(self._model).hexdigest()

    @property
    def vocab_size(self) -> int:
        """The number of ids, PAD, BOS, EOS and UNK included."""
        return len(self.model_ids)

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the ids of each line of text, without BOS or EOS."""
        if self._escapes:
            sentences = [sentence.translate(_TO_ESCAPED) if _needs_escape(sentence) else sentence
                         for sentence in sentences]  # fmt: skip
        with library_errors(CANNOT_ENCODE):
            encoded = self._processor.encode(list(sentences))
        return (
            encoded if self._is_identity else [self._from_model_id[ids].tolist() for ids in encoded]
        )

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each list of ids, without PAD, BOS, EOS and UNK.

        A text is always one line: a line break, which no encoded line contains, becomes a space.
        """
        model_ids = [self.model_ids[[i for i in ids if i > UNK]].tolist() for ids in sentences]
        with library_errors(CANNOT_DECODE):
            texts = [text.replace("\n", " ") for text in self._processor.decode(model_ids)]
        if not self._escapes:
            return texts
        return [_ESCAPED.sub(lambda match: _FROM_ESCAPED[match[0]], text) for text in texts]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return each id as a SentencePiece piece, with spaces as U+2581."""
        names = {PAD: "<pad>", BOS: "<s>", EOS: "</s>", UNK: "<unk>"}
        return [names.get(i) or self._processor.id_to_piece(int(self.model_ids[i])) for i in ids]

    def surfaces(self) -> list[bytes] | None:
        """Return the bytes that each id adds to a text (data/token_bytes.py); None if unknown.

        b"" means that the id is not visible in text.
        """
        sp, surfaces = self._processor, [b""] * self.vocab_size
        for id in range(UNK + 1, self.vocab_size):
            model_id = int(self.model_ids[id])
            if not (sp.is_control(model_id) or sp.is_unknown(model_id) or sp.is_unused(model_id)):
                surfaces[id] = piece_surface(sp.id_to_piece(model_id), sp.is_byte(model_id))
        return surfaces


class WordListTokenizer(Tokenizer):
    """Base of tokenizers that know the word of each id, special tokens included."""

    _words: list[str]

    @property
    def vocab_size(self) -> int:
        """The number of ids, PAD, BOS, EOS and UNK included."""
        return len(self._words)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return each id as its word."""
        return [self._words[i] for i in ids]


def processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """Load a serialized SentencePiece model as a processor; raises DataError."""
    model_processor = sentencepiece.SentencePieceProcessor()
    with library_errors("not a SentencePiece model"):
        try:
            model_processor.LoadFromSerializedProto(model)
        except RuntimeError:  # its message names a source line of the library
            raise DataError("not a SentencePiece model, or a corrupt one") from None
        # Fails if a piece is not UTF-8.
        model_processor.id_to_piece([*range(model_processor.get_piece_size())])
    return model_processor


def _needs_escape(sentence: str) -> bool:
    return _SPACE in sentence or _ESCAPE in sentence


def evenly_spaced(items: Iterable[str], limit: int) -> list[str]:
    """Return every k-th item for the smallest k = 1, 2, 4, ... that gives at most `limit`."""
    sample: list[str] = []
    step = 1
    for index, item in enumerate(items):
        if index % step:
            continue
        if len(sample) == limit:
            del sample[1::2]
            step *= 2
            if index % step:
                continue
        sample.append(item)
    return sample


def _training_error(message: str, vocab_size: int) -> DataError:
    if match := re.search(r"value <= (\d+)", message):
        return DataError(
            f"{FLAG}={vocab_size} is more than the training text supports: "
            f"at most {FLAG}={match[1]}, or give more text"
        )
    if match := re.search(r"\d+ vs (\d+)", message):
        return DataError(
            f"{FLAG}={vocab_size} is less than the training text needs for its characters: "
            f"at least {FLAG}={match[1]}"
        )
    if "sentences_.empty()" in message:
        return DataError("there is no text to train a vocabulary on: the training side is empty")
    return DataError(f"cannot train a vocabulary with {FLAG}={vocab_size}: {message}")
