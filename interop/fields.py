"""Shared field types, validation and messages of importers.

A format is a msgspec.Struct in a separate module. Unknown fields are ignored; unsupported fields
that would change the model are rejected by their value.
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
Id = Annotated[int, Meta(ge=-1, le=LARGEST)]  # of a token; -1: none


def read_object(file: Path, default: dict | None = None) -> dict[str, Any]:
    """Read a JSON object without nulls; `default` if there is no file. Raises DataError."""
    table = dict[str, Any]
    fields = read_json(file, table) if default is None else read_json(file, table, default)
    return {name: value for name, value in fields.items() if value is not None}


def read_settings(
    file: Path, struct: type[T], neutral: Mapping[str, tuple], default: dict | None = None
) -> T:
    """Read a file of settings as a `struct`; null counts as missing.

    Raises DataError, which names the file and the field, also for a value that is not `neutral`
    (see `reject_unsupported`).
    """
    fields = read_object(file, default)
    reject_unsupported(file, fields, neutral)
    return convert(fields, struct, str(file))


def name_settings(error: ValueError, names: Mapping[str, str]) -> str:
    """Translate the field names of a SearchConfig's error to those of a format."""
    return re.sub(r"config\.search\.(\w+)", lambda m: names.get(m[1], m[1]), str(error))


def read_bytes(file: Path) -> bytes:
    """Read a file's content; raises DataError."""
    return read_regular(file, MAX_MODEL_BYTES)


def reject_unsupported(file: Path, fields: Mapping[str, Any], neutral: Mapping[str, tuple]) -> None:
    """Raise DataError if a field has a value other than its neutral ones (without effect)."""
    for name, values in neutral.items():
        if name in fields and fields[name] is not None and fields[name] not in values:
            choices = " or ".join(json.dumps(value) for value in values)
            raise DataError(
                f"{file}: {name}={shown(fields[name])} is not supported"
                + (f", only {choices}" if choices else ": leave it out")
            )


def read_int(file: Path, fields: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """Read a field that is an integer of at least 0; null counts as missing. Raises DataError."""
    value = default if fields.get(name) is None else fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        problem = f"is {shown(fields[name])}" if name in fields else "is missing"
        raise DataError(f"{file}: {name} {problem}, but it must be a whole number")
    return value


def shown(value: Any) -> str:
    """Format an untrusted value for a message: as JSON, truncated."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number beyond 64 bits"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float | Mapping | list | tuple | set):
        return _TRUNCATED.repr(value)
    return json.dumps(str(value)[:80])  # YAML also has dates


_TRUNCATED = reprlib.Repr()  # handles recursive values
_TRUNCATED.maxlevel = 3
