"""Encoding of phrases: prefixes, and required or forbidden words, as token ids."""

from collections.abc import Sequence

from data.batch import UNK
from data.tokenizer import Tokenizer
from decode.options import InputError


def encode_phrase(context: str, text: str, tokenizer: Tokenizer) -> list[int]:
    """Encode `text` as after a space, without surrounding white space.

    Raises InputError, with `context` and the text, if the vocabulary cannot spell it.
    """
    ids = encode(text.strip(), tokenizer)[len(tokenizer.prefix) :] if text.strip() else []
    if UNK in ids or not ids:
        raise InputError(
            f"{context} {text!r} cannot be spelled by the vocabulary: remove it, or use characters "
            "of the vocabulary's training text"
        )
    return ids


def phrase_encodings(context: str, text: str, tokenizer: Tokenizer) -> list[list[int]]:
    """Encodings of `text` after a space and, unless it begins with a letter or digit, in a word."""
    encodings = [encode_phrase(context, text, tokenizer)]
    if not text.strip()[0].isalnum():
        stem, compound = (encode(start, tokenizer) for start in ("a", f"a{text.strip()}"))
        if compound[: len(stem)] == stem and len(compound) > len(stem):
            encodings.append(compound[len(stem) :])
    return encodings


def encode(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of one text."""
    return tokenizer.encode([text])[0]


def ngrams(ids: list[int], size: int) -> list[tuple[int, ...]]:
    """All n-grams of `size` ids, in order."""
    return [tuple(ids[start : start + size]) for start in range(len(ids) - size + 1)]


def contains(ids: list[int], phrase: Sequence[int]) -> bool:
    """Whether the phrase is a contiguous part of the ids."""
    return tuple(phrase) in ngrams(ids, len(phrase))
