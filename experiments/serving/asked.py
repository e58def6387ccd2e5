"""A request's body becomes what is asked for, or is refused with the name of the field."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from data.tokenizer import Tokenizer
from experiments.serving.limits import Limits, RefusedError

FIELDS = ("text", "n_best", "beam_size", "alignment")


@dataclass(frozen=True)
class Asked:
    """Texts, how many hypotheses of each, by which beam, and whether with alignments."""

    texts: tuple[str, ...]
    tokens: int  # of all texts, each with its end
    beam_size: int
    n_best: int = 1
    alignment: bool = True


def read(body: bytes, beams: dict[int, int], tokenizer: Tokenizer, limits: Limits) -> Asked:
    """What the JSON in `body` asks for; raises RefusedError.

    `beams` has how many hypotheses there are of each beam size that is served, the default first.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RefusedError(400, 'the body is not a JSON object such as {"text": "..."}')
    for name in fields:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(FIELDS)}"
            raise RefusedError(400, f"field {name[:40]!r} is unknown: {hint}")
    texts = _texts(fields)
    beam_size = _whole(fields, "beam_size", next(iter(beams)))
    if beam_size not in beams:
        served = ", ".join(map(str, beams))
        raise RefusedError(400, f"field beam_size: {beam_size} is not served here, but {served}")
    n_best = _whole(fields, "n_best", 1)
    if not 1 <= n_best <= beams[beam_size]:
        raise RefusedError(
            400,
            f"field n_best: {n_best} must be from 1 to {beams[beam_size]}, as many as there are",
        )
    alignment = fields.get("alignment", True)
    if not isinstance(alignment, bool):
        raise RefusedError(400, "field alignment: must be true or false")
    tokens = sum(len(ids) + 1 for ids in tokenizer.encode(texts))
    if tokens > limits.tokens:
        raise RefusedError(
            422,
            f"field text: {tokens} tokens are more than the {limits.tokens} that are taken at once",
        )
    return Asked(tuple(texts), tokens, beam_size, n_best, alignment)


def _texts(fields: dict) -> Sequence[str]:
    if "text" not in fields:
        raise RefusedError(400, "field text is missing")
    texts = fields["text"]
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list):
        raise RefusedError(400, "field text: must be a string or a list of strings")
    for number, text in enumerate(texts):
        what = f"field text[{number}]" if isinstance(fields["text"], list) else "field text"
        if not isinstance(text, str):
            raise RefusedError(400, f"{what}: must be a string")
        if "\n" in text or "\r" in text:
            raise RefusedError(400, f"{what}: has a line break: give a list, a line each")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RefusedError(
                400, f"{what}: has half a surrogate pair, which is no text"
            ) from None
    return texts


def _whole(fields: dict, name: str, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedError(400, f"field {name}: must be a whole number")
    return value
