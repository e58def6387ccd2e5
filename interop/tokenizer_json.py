"""Typed fields of tokenizer.json: tokens and their ids.

The library tokenizes text (data/hf_tokenizer.py).
"""

from pathlib import Path

from msgspec import Struct

from data.errors import DataError
from data.json_file import decode_json
from interop.fields import Id, read_bytes
from interop.tokenizer_config import Added


class AddedWithId(Added, kw_only=True):
    """An added token and its id."""

    id: Id


class _Model(Struct):
    vocab: dict[str, Id] | list[tuple[str, float]]


class _Tokenizer(Struct):
    model: _Model
    added_tokens: list[AddedWithId] | None = None


def read_tokenizer(file: Path) -> tuple[str, dict[str, int], dict[str, AddedWithId]]:
    """Read a tokenizer.json: its text, the ids of all tokens, and the added tokens.

    Raises DataError, which names the field.
    """
    content = read_bytes(file)
    tokenizer = decode_json(content, _Tokenizer, str(file))
    words = tokenizer.model.vocab
    if isinstance(words, list):
        words = {word: id for id, (word, _) in enumerate(words)}
    added = {token.content: token for token in tokenizer.added_tokens or ()}
    try:
        text = content.decode()
    except UnicodeDecodeError:  # in a field that the importer ignores
        raise DataError(f"{file} is not UTF-8") from None
    return text, words | {word: token.id for word, token in added.items()}, added
