"""Parse and validate the body of a request."""

import difflib
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from data.errors import DataError
from data.json_file import decode_json
from data.tokenizer import Tokenizer
from serve.limits import Limits, RequestError

_Count = Annotated[
    int, msgspec.Meta(ge=-(1 << 31), le=1 << 31)
]  # checked against the real bounds below
_WANTED = {
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


def read(
    body: bytes, beams: dict[int, int], tokenizer: Tokenizer, limits: Limits
) -> TranslateRequest:
    """Parse the JSON in `body`; raises RequestError.

    `beams` maps each served beam size to its number of hypotheses, the default first.
    """
    fields = _parse(body)
    texts = [fields.text] if isinstance(fields.text, str) else fields.text
    for number, text in enumerate(texts):
        if "\n" in text or "\r" in text:
            what = "text" if isinstance(fields.text, str) else f"text[{number}]"
            raise RequestError(400, f"field {what}: has a line break: give a list, a line each")
    beam_size = next(iter(beams)) if fields.beam_size is msgspec.UNSET else fields.beam_size
    if beam_size not in beams:
        served = ", ".join(map(str, beams))
        raise RequestError(400, f"field beam_size: {beam_size} is not served here, but {served}")
    if not 1 <= fields.n_best <= beams[beam_size]:
        raise RequestError(
            400,
            f"field n_best: {fields.n_best} must be from 1 to {beams[beam_size]}, "
            "as many as there are",
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
        if name not in _WANTED:
            near = difflib.get_close_matches(name[:40], _WANTED, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_WANTED)}"
            raise RequestError(400, f"field {name[:40]!r} is unknown: {hint}")
    if "text" not in fields:
        raise RequestError(400, "field text is missing")
    try:
        return msgspec.convert(fields, _Body)
    except msgspec.ValidationError as error:
        field = str(error).rpartition(" - at ")[2].strip("`").removeprefix("$.")
        name, bracket, _ = field.partition("[")
        expected = "a string" if bracket else _WANTED[name]
        raise RequestError(400, f"field {field}: must be {expected}") from None


def _count_tokens(texts: list[str], tokenizer: Tokenizer, limits: Limits) -> int:
    """Number of tokens of all texts, each with EOS; raises RequestError if there are too many."""
    characters = sum(map(len, texts))
    if characters > limits.characters or len(texts) > limits.tokens:
        # Some tokenizers are slow on long texts, so reject these first.
        what = (
            f"{characters} characters" if characters > limits.characters else f"{len(texts)} texts"
        )
        raise RequestError(
            422, f"field text: {what} are more than the {limits.tokens} tokens that are taken"
        )
    tokens = sum(len(ids) + 1 for ids in tokenizer.encode(texts))
    if tokens > limits.tokens:
        raise RequestError(
            422,
            f"field text: {tokens} tokens are more than the {limits.tokens} that are taken at once",
        )
    return tokens
