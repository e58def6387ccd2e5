"""Parse YAML files: tables, lists and scalars; no tags, anchors or objects.

Only libyaml's events are used. YAML's unsafe or slow features are not supported: types named by the
file, aliases, which can expand a kilobyte to gigabytes or be recursive, and keys that are not text.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml

from data.errors import DataError
from data.json_file import convert
from data.regular_file import read_regular

MAX_BYTES = 32 << 20  # twice the size of a vocabulary of a million words
T = TypeVar("T")
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # the C loader is ten times as fast
_CONSTANTS: dict[str, bool | None] = {"": None, "~": None, "null": None}
_CONSTANTS |= dict.fromkeys(("true", "yes", "on"), True)
_CONSTANTS |= dict.fromkeys(("false", "no", "off"), False)
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?")


def decode_yaml(data: bytes, kind: type[T], context: str) -> T:
    """Decode the YAML document `data` as a `kind`, a msgspec type; numbers may be given as text.

    Raises DataError, which begins with `context`.
    """
    return convert(_parse(data, context, _scalar), kind, context, strict=False)


def read_yaml(path: Path, kind: type[T]) -> T:
    """Read the YAML document in a regular file as a `kind`. Raises DataError."""
    return decode_yaml(read_regular(path, MAX_BYTES), kind, str(path))


def read_strings(path: Path) -> dict[str, str]:
    """Read a table of scalars as text, so that "no" is a word. Raises DataError."""
    data = read_regular(path, MAX_BYTES)
    return convert(_parse(data, str(path), lambda event: event.value), dict[str, str], str(path))


def _scalar(event: yaml.ScalarEvent) -> Any:
    """Convert a scalar written as null, a boolean or a fraction; return other scalars as text."""
    if not event.implicit[0]:  # it is quoted
        return event.value
    if event.value.lower() in _CONSTANTS:
        return _CONSTANTS[event.value.lower()]
    return float(event.value) if _FLOAT.fullmatch(event.value) else event.value


def _parse(data: bytes, context: str, scalar) -> Any:
    """Parse the single document in `data`; None if it is empty."""
    try:
        return _build(yaml.parse(data, Loader=_LOADER), scalar)
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{context} is not YAML: {' '.join(str(error).split())}") from None


def _build(events, scalar) -> Any:
    documents: list[Any] = []  # complete documents
    containers: list[Any] = [documents]  # open lists and tables around the next value
    keys: list[Any] = [None]  # the pending key of each open table
    for event in events:
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            value = containers.pop()
            keys.pop()
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if isinstance(containers[-1], dict) and keys[-1] is None:
                raise ValueError("a key must be text, not a list or a table")
            containers.append({} if isinstance(event, yaml.MappingStartEvent) else [])
            keys.append(None)
            continue
        elif isinstance(event, yaml.ScalarEvent):
            if isinstance(containers[-1], dict) and keys[-1] is None:
                keys[-1] = event.value
                continue
            value = scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases (*) are not supported: write the value itself")
        else:
            continue
        if isinstance(containers[-1], dict):
            containers[-1][keys[-1]] = value
            keys[-1] = None
        else:
            containers[-1].append(value)
    if len(documents) > 1:
        raise ValueError("it has several documents")
    return documents[0] if documents else None
