"""Types and messages that importers share.

A format is a msgspec.Struct in a module of its own. Fields that it does not have are ignored; those
that would change the model are refused by their value.
"""

import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from data.errors import DataError
from data.json_file import convert, read_json
from data.regular_file import read_regular

T = TypeVar("T")
LARGEST = 2**31 - 1
MAX_MODEL_BYTES = 1 << 30  # of a vocabulary or a list of words
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Size = Annotated[int, Meta(ge=1, le=LARGEST)]  # of an axis, or a number of layers
Epsilon = Annotated[float, Meta(ge=0, le=1)]  # of a norm
Id = Annotated[int, Meta(ge=-1, le=LARGEST)]  # of a word; -1 where there is none


def read_object(file: Path, default: dict | None = None) -> dict[str, Any]:
    """A JSON object without its nulls; `default` where there is no file. Raises DataError."""
    kind = dict[str, Any]
    found = read_json(file, kind) if default is None else read_json(file, kind, default)
    return {name: value for name, value in found.items() if value is not None}


def read_settings(
    file: Path, kind: type[T], neutral: Mapping[str, tuple], default: dict | None = None
) -> T:
    """A file of settings as a `kind`: null is as if it were not there.

    Raises DataError, which names the file and the field, also where a field is not one of those
    that are neutral.
    """
    found = read_object(file, default)
    reject_unsupported(file, found, neutral)
    return convert(found, kind, str(file))


def name_settings(error: ValueError, names: Mapping[str, str]) -> str:
    """What is wrong with a SearchConfig, by the names that a format has for its settings."""
    return re.sub(r"config\.search\.(\w+)", lambda m: names.get(m[1], m[1]), str(error))


def read_bytes(file: Path) -> bytes:
    """A file's content; raises DataError."""
    return read_regular(file, MAX_MODEL_BYTES)


def reject_unsupported(file: Path, found: Mapping[str, Any], neutral: Mapping[str, tuple]) -> None:
    """Raises DataError where a field has another value than those that change nothing here."""
    for name, values in neutral.items():
        if name in found and found[name] is not None and found[name] not in values:
            known = " or ".join(json.dumps(value) for value in values)
            raise DataError(
                f"{file}: {name}={shown(found[name])} is not supported"
                + (f", only {known}" if known else ": leave it out")
            )


def number(file: Path, found: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """A field that is a number of what there is, null as if it were not there; raises DataError."""
    value = default if found.get(name) is None else found[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        told = f"is {shown(found[name])}" if name in found else "is missing"
        raise DataError(f"{file}: {name} {told}, but it must be a whole number")
    return value


def shown(value: Any) -> str:
    """A value of others in a message: as JSON has it, and cut short whatever it contains."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number beyond 64 bits"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float | Mapping | list | tuple | set):
        return _SHORT.repr(value)
    return json.dumps(str(value)[:80])  # YAML knows dates, too


_SHORT = reprlib.Repr()  # of what refers to itself, too
_SHORT.maxlevel = 3
