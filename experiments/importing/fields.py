"""The JSON files of a Hugging Face folder, and what they say that is not known here."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.corpus import DataError


def read_json(file: Path, otherwise: dict | None = None) -> dict[str, Any]:
    """An object from a file; `otherwise` where there is none; raises DataError."""
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        if otherwise is not None:
            return otherwise
        raise DataError(f"{file} is missing") from None
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{file} is not a JSON object")
    return found


def word_of(token: Any) -> Any:
    """A special word, which may be an object with its properties."""
    return token.get("content") if isinstance(token, dict) else token


def added_tokens(file: Path, settings: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """The ids and the words that a tokenizer_config.json adds; raises DataError."""
    for id, token in (settings.get("added_tokens_decoder") or {}).items():
        if any(token.get(name) for name in ("lstrip", "rstrip", "single_word")):
            raise DataError(f"{file}: added token {id} takes spaces away, which is not supported")
        yield int(id), token["content"]


def read_bytes(file: Path) -> bytes:
    """A file's content; raises DataError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot read it ({error.strerror})") from None


def refuse_others(file: Path, found: Mapping[str, Any], neutral: Mapping[str, tuple]) -> None:
    """Raises DataError where a field has another value than those that change nothing here."""
    for name, values in neutral.items():
        if name in found and found[name] is not None and found[name] not in values:
            known = " or ".join(json.dumps(value) for value in values)
            value = json.dumps(found[name], default=str)  # YAML knows dates, too
            raise DataError(
                f"{file}: {name}={value} is not supported"
                + (f", only {known}" if known else ": leave it out")
            )


def number(file: Path, found: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """A field that is a number of what there is, null as if it were not there; raises DataError."""
    value = default if found.get(name) is None else found[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{file}: {name} {_told(found, name)}, but it must be a whole number")
    return value


def fraction(file: Path, found: Mapping[str, Any], name: str, default: float) -> float:
    """A field that is any number; raises DataError."""
    value = default if found.get(name) is None else found[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{file}: {name} {_told(found, name)}, but it must be a number")
    return float(value)


def _told(found: Mapping[str, Any], name: str) -> str:
    return f"is {json.dumps(found[name], default=str)}" if name in found else "is missing"
