"""The tokenizer of Hugging Face's Marian models: SentencePiece, then a table of tokens.

A text is split at the special words that stand in it ("</s>"), SentencePiece cuts what lies
between, and a table gives each piece its id; a piece that the table lacks is unknown. A part that
begins with a language code (">>fr<<") has that as its first word. Nothing else is done to the text:
Hugging Face's class knows how to normalise punctuation, but calls it nowhere.
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
from data.tokenizer import CANNOT_DECODE, CANNOT_ENCODE, Tokenizer, processor

_FORMAT = "heed marian 1"
# What Hugging Face does to the spaces of a text where "clean_up_tokenization_spaces" is set.
_CLEANED = (
    *((" " + mark, mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((" " + end, end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)


class MarianVocab(NamedTuple):
    """The table of one side, its ids Heed's: PAD, BOS, EOS, UNK, and then `words` in order."""

    words: tuple[str, ...]
    end: str = "</s>"
    unknown: str = "<unk>"
    padding: str = "<pad>"  # Marian's outputs begin with it: BOS
    special: tuple[str, ...] = ()  # further ones that are words of a text, wherever they stand
    clean_up: bool = False
    plain: bool = False  # SentencePiece alone cuts a text: no word of it is special, none a code
    codes: bool = True  # a language code at a part's beginning is a word
    spare: int = 0  # so many of the last words fill a table and stand for no text
    whole: tuple[str, ...] = ()  # words wherever they stand in a text, and in outputs too

    def ids(self) -> dict[str, int]:
        """Each word's id."""
        table = {word: id for id, word in enumerate(self.words, UNK + 1)}
        return table | {self.padding: BOS, self.end: EOS, self.unknown: UNK}


class _Saved(Struct, forbid_unknown_fields=True):
    """What `make` writes: a Words, and both models in base64."""

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


class MarianTokenizer(Tokenizer):
    """One side: a SentencePiece model to cut text by, one to join pieces by, and a table."""

    def __init__(self, model: bytes):
        """Reads what `make` wrote; raises DataError where it is something else."""
        self._model = model
        found = decode_json(model, _Saved, "the vocabulary")
        if found.format != _FORMAT or found.spare > len(found.words):
            raise DataError("not a vocabulary")
        self.table = MarianVocab(**{name: getattr(found, name) for name in MarianVocab._fields})
        self.models = found.cuts, found.joins or found.cuts
        self._cuts, self._joins = map(processor, self.models)
        self._ids = self.table.ids()
        special = {self.table.end, self.table.unknown, self.table.padding, *self.table.special}
        whole = special | {*self.table.whole}
        if not whole <= self._ids.keys():
            raise DataError("not a vocabulary: a special word is none of its words")
        # The longest first: where one begins another, the longer is meant.
        parted = sorted(whole - {""}, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, parted))})")
        self._left_out = {self._ids[word] for word in special}
        size = UNK + 1 + len(self.table.words)
        self._left_out.update(range(size - self.table.spare, size))
        # By SentencePiece's ids: of what it does not know it would give the text, "</s>" perhaps.
        size = self._cuts.get_piece_size() if self.table.plain else 0
        self._own = [self._ids.get(self._cuts.id_to_piece(id), UNK) for id in range(size)]
        self._names = ["<pad>", "<s>", self.table.end, self.table.unknown, *self.table.words]

    def __reduce__(self):
        return MarianTokenizer, (self._model,)

    @classmethod
    def make(cls, cuts: bytes, joins: bytes, table: MarianVocab) -> "MarianTokenizer":
        """From two serialized SentencePiece models and a table; DataError where one is no model."""
        encoded = {"cuts": b64encode(cuts).decode()}
        encoded["joins"] = b64encode(joins).decode() if joins != cuts else ""
        content = {"format": _FORMAT} | table._asdict() | encoded
        for name in "plain", "codes", "spare", "whole":
            # As before there was any: the same vocabulary has the same bytes.
            if content[name] == MarianVocab._field_defaults[name]:
                del content[name]
        return cls(json.dumps(content, ensure_ascii=False).encode())

    @property
    def vocab_size(self) -> int:
        """The number of ids, PAD, BOS, EOS and UNK included."""
        return len(self._names)

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without BOS or EOS, but for those that it spells out."""
        if self.table.plain:
            own = self._own
            with library_errors(CANNOT_ENCODE):
                cut_ids = self._cuts.encode(list(sentences))
            return [[own[id] for id in ids] for ids in cut_ids]
        parts = [self._special.split(sentence) for sentence in sentences]
        codes, texts = [], []
        for text in (text for each in parts for text in each[::2]):
            code, text = _language_code(text) if self.table.codes else ([], text)
            codes.append(code)
            texts.append(text)
        with library_errors(CANNOT_ENCODE):
            cut = iter(zip(codes, self._cuts.encode(texts, out_type=str), strict=True))
        encoded = []
        for each in parts:
            words = []
            for number, part in enumerate(each):
                if number % 2:
                    words.append(part)
                    continue
                code, pieces = next(cut)
                words += [*code, *pieces] if part else []
            encoded.append([self._ids.get(word, UNK) for word in words])
        return encoded

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Returns the text of each list of ids, special words left out; it is always one line."""
        kept = [[self._names[i] for i in ids if i > UNK and i not in self._left_out]
                for ids in sentences]  # fmt: skip
        with library_errors(CANNOT_DECODE):
            texts = [self._joins.decode_pieces(pieces) if pieces else "" for pieces in kept]
        texts = [text.replace("\u2581", " ").strip().replace("\n", " ") for text in texts]
        return [cleaned(text) for text in texts] if self.table.clean_up else texts

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns each id as its word, a space as U+2581."""
        return [self._names[i] for i in ids]

    def surfaces(self) -> list[bytes] | None:
        """Returns what each id adds to a text (data/token_bytes.py)."""
        sp, found = self._joins, [b""] * self.vocab_size
        for id in range(UNK + 1, self.vocab_size):
            theirs = sp.piece_to_id(self._names[id])
            if id not in self._left_out and not sp.is_control(theirs):
                found[id] = piece_surface(self._names[id], sp.is_byte(theirs))
        return found


def cleaned(text: str) -> str:
    """A text without the spaces that "clean_up_tokenization_spaces" takes away."""
    for old, new in _CLEANED:
        text = text.replace(old, new)
    return text


def _language_code(text: str) -> tuple[list[str], str]:
    end = text.find("<<") + 2
    return ([text[:end]], text[end:]) if text.startswith(">>") and end > 1 else ([], text)
