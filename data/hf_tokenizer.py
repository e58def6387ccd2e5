"""Hugging Face tokenizers: a tokenizer.json with Heed's order of ids.

The `tokenizers` library splits and joins text for any kind of model in the file: byte-level BPE, as
in BART, or SentencePiece, as in mBART and NLLB. Padding, end and unknown word become PAD, EOS and
UNK. Hugging Face's outputs begin with a token that has another use, usually EOS; here BOS is a
separate id. All other ids follow in their order.
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
from data.marian_tokenizer import clean_up_tokenization
from data.token_bytes import byte_level_surface, piece_surface
from data.tokenizer import CANNOT_DECODE, CANNOT_ENCODE, WordListTokenizer

FORMAT = "heed tokenizers 1"
_SENTENCE_PIECE = {"Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}  # its decoder's steps
_Id = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class _Saved(Struct):
    """The format that `make` writes."""

    format: str
    order: Annotated[tuple[_Id, ...], Meta(min_length=UNK + 1)]
    prefix: tuple[_Id, ...]
    cleans: bool
    tokenizer: str


class FastTokenizer(WordListTokenizer):
    """One side: the library's tokenizer, and the prefix of every text."""

    def __init__(self, model: bytes):
        """Read the output of `make`; raise DataError for other content."""
        self._model = model
        saved = decode_json(model, _Saved, "the vocabulary")
        if saved.format != FORMAT:
            raise DataError("not a Heed vocabulary")
        self._cleans, self.order = saved.cleans, saved.order
        self._library = _library(saved.tokenizer)
        # Padding that is spelled out in a text is unknown: as PAD it would not count as text.
        self._ids = {library_id: id for id, library_id in enumerate(self.order) if id >= EOS}
        if not self._ids.keys() >= {*saved.prefix}:
            raise DataError("not a Heed vocabulary: a prefix id is not in it")
        self.prefix = tuple(self._ids[id] for id in saved.prefix)
        special_tokens = ["<pad>", "<s>", "</s>", "<unk>"]
        self._words = special_tokens + [
            self._library.id_to_token(id) or f"<{id}>" for id in self.order[UNK + 1 :]
        ]

    def __reduce__(self):
        return FastTokenizer, (self._model,)

    @classmethod
    def make(
        cls, content: str, order: Sequence[int], prefix: Sequence[int], cleans: bool = False
    ) -> "FastTokenizer":
        """Build from the text of a tokenizer.json, the order of its ids, and the prefix's ids.

        `order` has the ids that become PAD, BOS, EOS and UNK, and then all others. With `cleans`,
        spaces before punctuation are removed from outputs. Raises DataError if the text is not a
        tokenizer, or the library is not installed.
        """
        saved = {"format": FORMAT, "order": [*order], "prefix": [*prefix], "cleans": cleans}
        saved["tokenizer"] = content
        return cls(json.dumps(saved, ensure_ascii=False).encode())

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, `prefix` first, without EOS unless it is spelled out.

        A blank text has no ids.
        """
        with library_errors(CANNOT_ENCODE):
            encodings = self._library.encode_batch_fast(list(sentences), add_special_tokens=False)
        sentence_ids = ([self._ids.get(id, UNK) for id in encoding.ids] for encoding in encodings)
        encoded = zip(sentences, sentence_ids, strict=True)
        return [[*self.prefix, *ids] if text.strip() else [] for text, ids in encoded]

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each list of ids, without special words; always one line."""
        library_ids = [[self.order[i] for i in ids if i > UNK] for ids in sentences]
        with library_errors(CANNOT_DECODE):
            texts = [text.replace("\n", " ") for text in self._library.decode_batch(library_ids)]
        return [clean_up_tokenization(text) for text in texts] if self._cleans else texts

    def surfaces(self) -> list[bytes] | None:
        """Return the bytes that each id adds to a text (data/token_bytes.py).

        None if the file's decoder neither joins GPT-2's bytes nor replaces U+2581 by a space.
        """
        decoder = self._library.decoder
        steps = json.loads(decoder.__getstate__()) if decoder is not None else {}
        step_types = {step["type"] for step in steps.get("decoders", [steps]) if "type" in step}
        if step_types == {"ByteLevel"}:
            surface = byte_level_surface
        elif step_types & {"Metaspace", "Replace"} and step_types <= _SENTENCE_PIECE:
            surface = partial(piece_surface, is_byte="ByteFallback" in step_types)
        else:
            return None
        special = {id for id, t in self._library.get_added_tokens_decoder().items() if t.special}
        return [b""] * (UNK + 1) + [
            b"" if id in special else surface(self._library.id_to_token(id) or "")
            for id in self.order[UNK + 1 :]
        ]


@lru_cache(maxsize=2)  # one per side; reading one takes seconds
def _library(content: str):
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError:
        raise DataError(
            "this vocabulary is one of Hugging Face's tokenizers library: pip install tokenizers"
        ) from None
    with library_errors("not a tokenizer"):
        tokenizer = tokenizers.Tokenizer.from_str(content)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
