"""Parse YAML files: tables, lists and scalars; no tags, anchors or objects.

Only libyaml's events are used. What makes YAML unsafe or slow has no counterpart here: types that
a file names, references by which a kilobyte stands for gigabytes or for itself, and keys that are
no text.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml

from data.errors import DataError
from data.json_file import convert
from data.regular_file import read_regular

MAX_BYTES = 32 << 20  # a vocabulary of a million words has about half
T = TypeVar("T")
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # that in C is ten times as fast
_CONSTANTS: dict[str, bool | None] = {"": None, "~": None, "null": None}
_CONSTANTS |= dict.fromkeys(("true", "yes", "on"), True)
_CONSTANTS |= dict.fromkeys(("false", "no", "off"), False)
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?")


def decode_yaml(data: bytes, kind: type[T], where: str) -> T:
    """The YAML document `data` as a `kind`, a msgspec type; numbers may stand as their text.

    Raises DataError, which begins with `where`.
    """
    return convert(_document(data, where, _scalar), kind, where, strict=False)


def read_yaml(path: Path, kind: type[T]) -> T:
    """The YAML document in a regular file as a `kind`. Raises DataError."""
    return decode_yaml(read_regular(path, MAX_BYTES), kind, str(path))


def read_strings(path: Path) -> dict[str, str]:
    """A table of scalars as they are written, where "no" is a word. Raises DataError."""
    data = read_regular(path, MAX_BYTES)
    return convert(_document(data, str(path), lambda event: event.value), dict[str, str], str(path))


def _scalar(event: yaml.ScalarEvent) -> Any:
    """A scalar's value: null, a truth or a fraction where it is written as one, else its text."""
    if not event.implicit[0]:  # it is quoted
        return event.value
    if event.value.lower() in _CONSTANTS:
        return _CONSTANTS[event.value.lower()]
    return float(event.value) if _FLOAT.fullmatch(event.value) else event.value


def _document(data: bytes, where: str, scalar) -> Any:
    """The one document in `data`, empty: None."""
    try:
        return _built(yaml.parse(data, Loader=_LOADER), scalar)
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def _built(events, scalar) -> Any:
    found: list[Any] = []  # the documents
    open_: list[Any] = [found]  # the lists and tables around the next value
    keys: list[Any] = [None]  # of each table among them, the key whose value is next
    for event in events:
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            value = open_.pop()
            keys.pop()
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if isinstance(open_[-1], dict) and keys[-1] is None:
                raise ValueError("a key must be text, not a list or a table")
            open_.append({} if isinstance(event, yaml.MappingStartEvent) else [])
            keys.append(None)
            continue
        elif isinstance(event, yaml.ScalarEvent):
            if isinstance(open_[-1], dict) and keys[-1] is None:
                keys[-1] = event.value
                continue
            value = scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            raise ValueError("references (*) are not supported: write what they stand for")
        else:
            continue
        if isinstance(open_[-1], dict):
            open_[-1][keys[-1]] = value
            keys[-1] = None
        else:
            open_[-1].append(value)
    if len(found) > 1:
        raise ValueError("it has several documents")
    return found[0] if found else None
