"""Read JSON Lines that may be corrupt; unusable lines are skipped and reported.

A file is read line by line, so neither a large file nor one endless line fills the memory.
"""

import os
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec

from data.errors import DataError
from data.regular_file import open_regular

MAX_BYTES = 1 << 30
_MAX_LINE_BYTES = 16 << 20
_MAX_LISTED = 8  # the maximum number of line numbers in a warning

# Integers that later arithmetic and printing can handle; JSON itself allows any length.
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_OBJECT = msgspec.json.Decoder(dict[str, None | bool | _Integer | float | str | list | dict])


class JsonLine(NamedTuple):
    """One line: its number, from 1, its bytes, and its object, or None if it is unusable."""

    number: int
    content: bytes
    row: dict | None


class JsonRows(NamedTuple):
    """The usable objects of a file, in order, and the numbers of its unusable lines."""

    rows: list[dict]
    unusable: list[int]


def iter_json_lines(
    path: str | os.PathLike, kind: type[msgspec.Struct], max_bytes: int = MAX_BYTES
) -> Iterator[JsonLine]:
    """Iterate over the lines of a file: objects with the fields of `kind`; none without a file.

    A row is a plain dict and keeps fields that `kind` does not have. Blank lines are skipped.
    Raises DataError if the file is not a regular file, cannot be read or exceeds `max_bytes`.
    """
    if not os.path.lexists(path):
        return
    fields = msgspec.json.Decoder(kind)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise DataError(f"{os.fspath(path)} has {size:,} bytes; at most {max_bytes:,} are read")
        number = 0
        try:
            while content := file.readline(_MAX_LINE_BYTES):
                number += 1
                if content.isspace():
                    continue
                yield JsonLine(number, content, _row(content, fields))
                while not content.endswith(b"\n") and content:  # the rest of an overlong line
                    content = file.readline(_MAX_LINE_BYTES)
        except OSError as error:
            raise DataError(f"cannot read {os.fspath(path)}: {error.strerror}") from None


def read_json_lines(
    path: str | os.PathLike, kind: type[msgspec.Struct], max_bytes: int = MAX_BYTES
) -> JsonRows:
    """Read all usable rows of a file, like `iter_json_lines`. Raises DataError."""
    rows, unusable = [], []
    for line in iter_json_lines(path, kind, max_bytes):
        if line.row is None:
            unusable.append(line.number)
        else:
            rows.append(line.row)
    return JsonRows(rows, unusable)


def unusable_lines(path: str | os.PathLike, numbers: list[int]) -> str:
    """Format a one-line warning about the skipped lines of a file."""
    more = ", ..." if len(numbers) > _MAX_LISTED else ""
    listed = ", ".join(map(str, numbers[:_MAX_LISTED])) + more
    subject = (
        "1 unusable line was" if len(numbers) == 1 else f"{len(numbers):,} unusable lines were"
    )
    lines = "line" if len(numbers) == 1 else "lines"
    return f"{os.fspath(path)}: {subject} skipped: {lines} {listed}"


def _row(content: bytes, fields: msgspec.json.Decoder) -> dict | None:
    try:
        fields.decode(content)
        return _OBJECT.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
