"""Tokenizer of Hugging Face's Marian models: SentencePiece, then a table of tokens.

A text is split at the special words in it ("</s>"), SentencePiece splits the parts between them
into pieces, and a table maps each piece to its id; a piece that is not in the table is unknown. A
language code (">>fr<<") at the beginning of a part is a word. The text is not normalized: Hugging
Face's class has code to normalize punctuation, but never calls it.
"""

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from data.batch import BOS, EOS, UNK
from data.errors import DataError
from data.json_file import decode_json
from data.library_errors import library_errors
from data.token_bytes import piece_surface
from data.tokenizer import CANNOT_DECODE, CANNOT_ENCODE, WordListTokenizer, processor

_FORMAT = "heed marian 1"
# The replacements that Hugging Face makes if "clean_up_tokenization_spaces" is set.
_CLEAN_UPS = (
    *((" " + mark, mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((" " + end, end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)


class MarianVocab(NamedTuple):
    """The token table of one side, with Heed's ids: PAD, BOS, EOS, UNK, then `words` in order."""

    words: tuple[str, ...]
    end: str = "</s>"
    unknown: str = "<unk>"
    padding: str = "<pad>"  # Marian's outputs begin with it: BOS
    special: tuple[str, ...] = ()  # more special words, recognized anywhere in a text
    clean_up: bool = False
    plain: bool = False  # SentencePiece alone splits a text: no special words, no codes
    codes: bool = True  # a language code at the beginning of a part is a word
    spare: int = 0  # the number of unused words at the end of the table
    whole: tuple[str, ...] = ()  # words recognized anywhere in a text, and visible in outputs

    def ids(self) -> dict[str, int]:
        """The id of each word."""
        table = {word: id for id, word in enumerate(self.words, UNK + 1)}
        return table | {self.padding: BOS, self.end: EOS, self.unknown: UNK}


class _Saved(Struct, forbid_unknown_fields=True):
    """The format that `make` writes: a MarianVocab, and both models in base64."""

    format: str
    words: tuple[str, ...]
    cuts: bytes
    joins: bytes
    end: str
    unknown: str
    padding: str
    special: tuple[str, ...]
    clean_up: bool
    plain: bool = False
    codes: bool = True
    spare: Annotated[int, Meta(ge=0)] = 0
    whole: tuple[str, ...] = ()


class MarianTokenizer(WordListTokenizer):
    """One side: a SentencePiece model to split text, one to join pieces, and a table."""

    def __init__(self, model: bytes):
        """Read the output of `make`; raise DataError for other content."""
        self._model = model
        saved = decode_json(model, _Saved, "the vocabulary")
        if saved.format != _FORMAT or saved.spare > len(saved.words):
            raise DataError("not a vocabulary")
        self.table = MarianVocab(**{name: getattr(saved, name) for name in MarianVocab._fields})
        self.models = saved.cuts, saved.joins or saved.cuts
        self._cuts, self._joins = map(processor, self.models)
        self._ids = self.table.ids()
        special = {self.table.end, self.table.unknown, self.table.padding, *self.table.special}
        delimiters = special | {*self.table.whole}
        if not delimiters <= self._ids.keys():
            raise DataError("not a vocabulary: a special word is not in it")
        # Longest first: if one word is a prefix of another, the longer one matches.
        longest_first = sorted(delimiters - {""}, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._skipped_ids = {self._ids[word] for word in special}
        size = UNK + 1 + len(self.table.words)
        self._skipped_ids.update(range(size - self.table.spare, size))
        # Indexed by SentencePiece's ids: as text, an unknown piece could read "</s>".
        size = self._cuts.get_piece_size() if self.table.plain else 0
        self._piece_ids = [self._ids.get(self._cuts.id_to_piece(id), UNK) for id in range(size)]
        self._words = ["<pad>", "<s>", self.table.end, self.table.unknown, *self.table.words]

    def __reduce__(self):
        return MarianTokenizer, (self._model,)

    @classmethod
    def make(cls, cuts: bytes, joins: bytes, table: MarianVocab) -> "MarianTokenizer":
        """Build from two serialized SentencePiece models and a table; DataError if invalid."""
        encoded = {"cuts": b64encode(cuts).decode()}
        encoded["joins"] = b64encode(joins).decode() if joins != cuts else ""
        content = {"format": _FORMAT} | table._asdict() | encoded
        for name in "plain", "codes", "spare", "whole":
            # Omit defaults, as before these fields existed: equal vocabularies have equal bytes.
            if content[name] == MarianVocab._field_defaults[name]:
                del content[name]
        return cls(json.dumps(content, ensure_ascii=False).encode())

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without BOS or EOS, except those spelled out in it."""
        if self.table.plain:
            piece_ids = self._piece_ids
            with library_errors(CANNOT_ENCODE):
                model_ids = self._cuts.encode(list(sentences))
            return [[piece_ids[id] for id in ids] for ids in model_ids]
        parts = [self._special.split(sentence) for sentence in sentences]
        codes, texts = [], []
        for text in (text for sentence_parts in parts for text in sentence_parts[::2]):
            code, text = _language_code(text) if self.table.codes else ([], text)
            codes.append(code)
            texts.append(text)
        with library_errors(CANNOT_ENCODE):
            encodings = iter(zip(codes, self._cuts.encode(texts, out_type=str), strict=True))
        encoded = []
        for sentence_parts in parts:
            words = []
            for index, part in enumerate(sentence_parts):
                if index % 2:
                    words.append(part)
                    continue
                code, pieces = next(encodings)
                words += [*code, *pieces] if part else []
            encoded.append([self._ids.get(word, UNK) for word in words])
        return encoded

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each list of ids, without special words; always one line."""
        piece_lists = [[self._words[i] for i in ids if i > UNK and i not in self._skipped_ids]
                for ids in sentences]  # fmt: skip
        with library_errors(CANNOT_DECODE):
            texts = [self._joins.decode_pieces(pieces) if pieces else "" for pieces in piece_lists]
        texts = [text.replace("\u2581", " ").strip().replace("\n", " ") for text in texts]
        return [clean_up_tokenization(text) for text in texts] if self.table.clean_up else texts

    def surfaces(self) -> list[bytes] | None:
        """Return the bytes that each id adds to a text (data/token_bytes.py)."""
        sp, surfaces = self._joins, [b""] * self.vocab_size
        for id in range(UNK + 1, self.vocab_size):
            piece_id = sp.piece_to_id(self._words[id])
            if id not in self._skipped_ids and not sp.is_control(piece_id):
                surfaces[id] = piece_surface(self._words[id], sp.is_byte(piece_id))
        return surfaces


def clean_up_tokenization(text: str) -> str:
    """Remove spaces from a text, as Hugging Face's "clean_up_tokenization_spaces"."""
    for old, new in _CLEAN_UPS:
        text = text.replace(old, new)
    return text


def _language_code(text: str) -> tuple[list[str], str]:
    end = text.find("<<") + 2
    return ([text[:end]], text[end:]) if text.startswith(">>") and end > 1 else ([], text)
