"""Types of tokenizer.json: tokens and their ids.

What it does with a text is the library's to say (data/hf_tokenizer.py).
"""

from pathlib import Path

from msgspec import Struct

from data.errors import DataError
from data.json_file import decode_json
from interop.fields import Id, read_bytes
from interop.tokenizer_config import Added


class AddedWithId(Added, kw_only=True):
    """A word beside those of the model, and its id."""

    id: Id


class _Model(Struct):
    vocab: dict[str, Id] | list[tuple[str, float]]


class _Tokenizer(Struct):
    model: _Model
    added_tokens: list[AddedWithId] | None = None


def read_tokenizer(file: Path) -> tuple[str, dict[str, int], dict[str, AddedWithId]]:
    """The text of a tokenizer.json, the ids of its words, and those that are added to them.

    Raises DataError, which names the field.
    """
    content = read_bytes(file)
    found = decode_json(content, _Tokenizer, str(file))
    words = found.model.vocab
    if isinstance(words, list):
        words = {word: id for id, (word, _) in enumerate(words)}
    added = {each.content: each for each in found.added_tokens or ()}
    try:
        text = content.decode()
    except UnicodeDecodeError:  # in what is not read here
        raise DataError(f"{file} is not UTF-8") from None
    return text, words | {word: each.id for word, each in added.items()}, added
