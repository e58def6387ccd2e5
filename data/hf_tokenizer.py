"""Hugging Face tokenizers: a tokenizer.json with Heed's order of ids.

The library (`tokenizers`) cuts and joins text, whatever kind of model the file describes: bytes
merged in pairs, as in BART, or SentencePiece's, as in mBART and NLLB. Padding, end and unknown word
become PAD, EOS and UNK. Outputs there begin with a word that others of their ids are too, the end
mostly: so BOS is an id of its own, and all others follow in their order.
"""

import importlib
import json
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Annotated

from msgspec import Meta, Struct

from data.batch import EOS, UNK
from data.errors import DataError
from data.json_file import decode_json
from data.library_errors import library_errors
from data.marian_tokenizer import cleaned
from data.token_bytes import byte_level_surface, piece_surface
from data.tokenizer import CANNOT_DECODE, CANNOT_ENCODE, Tokenizer

FORMAT = "heed tokenizers 1"
_SENTENCE_PIECE = {"Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}  # its decoder's steps
_Id = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class _Saved(Struct):
    """What `make` writes."""

    format: str
    order: Annotated[tuple[_Id, ...], Meta(min_length=UNK + 1)]
    prefix: tuple[_Id, ...]
    cleans: bool
    tokenizer: str


class FastTokenizer(Tokenizer):
    """One side: the library's tokenizer, and what every text begins with."""

    def __init__(self, model: bytes):
        """Reads what `make` wrote; raises DataError where it is something else."""
        self._model = model
        found = decode_json(model, _Saved, "the vocabulary")
        if found.format != FORMAT:
            raise DataError("not a vocabulary of Heed's")
        self._cleans, self.order = found.cleans, found.order
        self._library = _library(found.tokenizer)
        # A padding that is spelled out is no word: it would be none of the text any more.
        self._ids = {theirs: id for id, theirs in enumerate(self.order) if id >= EOS}
        if not self._ids.keys() >= {*found.prefix}:
            raise DataError("not a vocabulary of Heed's: a text begins with none of its words")
        self.prefix = tuple(self._ids[id] for id in found.prefix)
        marks = ["<pad>", "<s>", "</s>", "<unk>"]
        self._names = marks + [
            self._library.id_to_token(id) or f"<{id}>" for id in self.order[UNK + 1 :]
        ]

    def __reduce__(self):
        return FastTokenizer, (self._model,)

    @classmethod
    def make(
        cls, content: str, order: Sequence[int], prefix: Sequence[int], cleans: bool = False
    ) -> "FastTokenizer":
        """From the text of a tokenizer.json, and by their ids: all of ours, and the prefix.

        Where it `cleans`, spaces before punctuation go from outputs.

        `order` has the ids that become PAD, BOS, EOS and UNK, and then all others. Raises DataError
        where the text is none, or the library is not installed.
        """
        found = {"format": FORMAT, "order": [*order], "prefix": [*prefix], "cleans": cleans}
        found["tokenizer"] = content
        return cls(json.dumps(found, ensure_ascii=False).encode())

    @property
    def vocab_size(self) -> int:
        """The number of ids, PAD, BOS, EOS and UNK included."""
        return len(self.order)

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, `prefix` first, without EOS, but where it spells it out.

        A blank text has none.
        """
        with library_errors(CANNOT_ENCODE):
            found = self._library.encode_batch_fast(list(sentences), add_special_tokens=False)
        each = ([self._ids.get(id, UNK) for id in one.ids] for one in found)
        told = zip(sentences, each, strict=True)
        return [[*self.prefix, *ids] if text.strip() else [] for text, ids in told]

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Returns the text of each list of ids, special words left out; it is always one line."""
        theirs = [[self.order[i] for i in ids if i > UNK] for ids in sentences]
        with library_errors(CANNOT_DECODE):
            texts = [text.replace("\n", " ") for text in self._library.decode_batch(theirs)]
        return [cleaned(text) for text in texts] if self._cleans else texts

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns each id as its word."""
        return [self._names[i] for i in ids]

    def surfaces(self) -> list[bytes] | None:
        """Returns what each id adds to a text (data/token_bytes.py).

        None where the file's decoder neither joins GPT-2's bytes nor replaces U+2581 by a space.
        """
        decoder = self._library.decoder
        steps = json.loads(decoder.__getstate__()) if decoder is not None else {}
        kinds = {step["type"] for step in steps.get("decoders", [steps]) if "type" in step}
        if kinds == {"ByteLevel"}:
            surface = byte_level_surface
        elif kinds & {"Metaspace", "Replace"} and kinds <= _SENTENCE_PIECE:
            surface = partial(piece_surface, is_byte="ByteFallback" in kinds)
        else:
            return None
        special = {id for id, t in self._library.get_added_tokens_decoder().items() if t.special}
        return [b""] * (UNK + 1) + [
            b"" if id in special else surface(self._library.id_to_token(id) or "")
            for id in self.order[UNK + 1 :]
        ]


@lru_cache(maxsize=2)  # both sides have one, which takes seconds to read
def _library(content: str):
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError:
        raise DataError(
            "this vocabulary is one of Hugging Face's tokenizers library: pip install tokenizers"
        ) from None
    with library_errors("not a tokenizer"):
        found = tokenizers.Tokenizer.from_str(content)
    found.no_padding()
    found.no_truncation()
    return found
