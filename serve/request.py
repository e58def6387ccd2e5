"""Parse and validate request bodies."""

import difflib
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from data.errors import DataError
from data.json_file import decode_json
from data.tokenizer import Tokenizer
from serve.limits import Limits, RequestError

# Exact bounds are checked in `parse_request`.
_Count = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=1 << 31)]
_FIELD_TYPES = {
    "text": "a string or a list of strings",
    "n_best": "a whole number",
    "beam_size": "a whole number",
    "alignment": "true or false",
}


class _Body(msgspec.Struct):
    text: str | list[str]
    n_best: _Count = 1
    beam_size: _Count | msgspec.UnsetType = msgspec.UNSET
    alignment: bool = True


@dataclass(frozen=True)
class TranslateRequest:
    """A parsed request: texts, hypotheses per text, beam size, and whether to align."""

    texts: tuple[str, ...]
    tokens: int  # of all texts, each with EOS
    beam_size: int
    n_best: int = 1
    alignment: bool = True


def parse_request(
    body: bytes, beam_sizes: dict[int, int], tokenizer: Tokenizer, limits: Limits
) -> TranslateRequest:
    """Parse the JSON in `body`; raises RequestError.

    `beam_sizes` maps each served beam size to its number of hypotheses, the default first.
    """
    fields = _parse(body)
    texts = [fields.text] if isinstance(fields.text, str) else fields.text
    for number, text in enumerate(texts):
        if "\n" in text or "\r" in text:
            field = "text" if isinstance(fields.text, str) else f"text[{number}]"
            raise RequestError(400, f"field {field}: has a line break: give a list of lines")
    beam_size = next(iter(beam_sizes)) if fields.beam_size is msgspec.UNSET else fields.beam_size
    if beam_size not in beam_sizes:
        served = ", ".join(map(str, beam_sizes))
        raise RequestError(400, f"field beam_size: {beam_size} is not served, only {served}")
    if not 1 <= fields.n_best <= beam_sizes[beam_size]:
        raise RequestError(
            400,
            f"field n_best: {fields.n_best} must be from 1 to "
            f"{beam_sizes[beam_size]}, the number of hypotheses",
        )
    tokens = _count_tokens(texts, tokenizer, limits)
    return TranslateRequest(tuple(texts), tokens, beam_size, fields.n_best, fields.alignment)


def _parse(body: bytes) -> _Body:
    try:
        fields = decode_json(body, Any, "the body")
    except DataError as error:
        raise RequestError(400, str(error)) from None
    if not isinstance(fields, dict):
        raise RequestError(400, 'the body is not a JSON object such as {"text": "..."}')
    for name in fields:
        if name not in _FIELD_TYPES:
            matches = difflib.get_close_matches(name[:40], _FIELD_TYPES, n=1)
            hint = (
                f"did you mean {matches[0]}?"
                if matches
                else f"supported are {', '.join(_FIELD_TYPES)}"
            )
            raise RequestError(400, f"field {name[:40]!r} is unknown: {hint}")
    if "text" not in fields:
        raise RequestError(400, "field text is missing")
    try:
        return msgspec.convert(fields, _Body)
    except msgspec.ValidationError as error:
        field = str(error).rpartition(" - at ")[2].strip("`").removeprefix("$.")
        name, bracket, _ = field.partition("[")
        expected = "a string" if bracket else _FIELD_TYPES[name]
        raise RequestError(400, f"field {field}: must be {expected}") from None


def _count_tokens(texts: list[str], tokenizer: Tokenizer, limits: Limits) -> int:
    """Number of tokens of all texts, each with EOS; raises RequestError if there are too many."""
    characters = sum(map(len, texts))
    if characters > limits.characters or len(texts) > limits.tokens:
        # Some tokenizers are slow on long texts, so reject these first.
        size = (
            f"{characters} characters" if characters > limits.characters else f"{len(texts)} texts"
        )
        raise RequestError(422, f"field text: {size} exceed the limit of {limits.tokens} tokens")
    tokens = sum(len(ids) + 1 for ids in tokenizer.encode(texts))
    if tokens > limits.tokens:
        raise RequestError(
            422,
            f"field text: {tokens} tokens exceed the limit of {limits.tokens}",
        )
    return tokens
