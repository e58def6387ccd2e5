"""Read JSON Lines that may be damaged; unusable lines are skipped and reported.

A file is read line by line, so that neither its size nor one endless line fills the memory.
"""

import os
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec

from data.errors import DataError
from data.regular_file import open_regular

MAX_BYTES = 1 << 30
_MAX_LINE_BYTES = 16 << 20
_NAMED = 8  # line numbers in a warning

# Numbers that later arithmetic and printing can hold: JSON itself has integers of any length.
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_OBJECT = msgspec.json.Decoder(dict[str, None | bool | _Integer | float | str | list | dict])


class JsonLine(NamedTuple):
    """One line: its number from 1 on, its bytes, and its object, or None if it is unusable."""

    number: int
    content: bytes
    row: dict | None


class JsonRows(NamedTuple):
    """The usable objects of a file in order, and the numbers of the unusable lines."""

    rows: list[dict]
    unusable: list[int]


def iter_json_lines(
    path: str | os.PathLike, kind: type[msgspec.Struct], max_bytes: int = MAX_BYTES
) -> Iterator[JsonLine]:
    """The lines of a file, each an object with the fields of `kind`; none if there is no file.

    A row is a plain dict and keeps fields that `kind` does not have. Blank lines are left out.
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
                while not content.endswith(b"\n") and content:  # the rest of too long a line
                    content = file.readline(_MAX_LINE_BYTES)
        except OSError as error:
            raise DataError(f"cannot read {os.fspath(path)}: {error.strerror}") from None


def read_json_lines(
    path: str | os.PathLike, kind: type[msgspec.Struct], max_bytes: int = MAX_BYTES
) -> JsonRows:
    """All usable rows of a file, as `iter_json_lines` has them. Raises DataError."""
    rows, unusable = [], []
    for line in iter_json_lines(path, kind, max_bytes):
        if line.row is None:
            unusable.append(line.number)
        else:
            rows.append(line.row)
    return JsonRows(rows, unusable)


def unusable_lines(path: str | os.PathLike, numbers: list[int]) -> str:
    """One line of text that says which lines of a file were left out."""
    named = ", ".join(map(str, numbers[:_NAMED])) + ", ..." * (len(numbers) > _NAMED)
    what = "1 unusable line was" if len(numbers) == 1 else f"{len(numbers):,} unusable lines were"
    return f"{os.fspath(path)}: {what} left out: line{'s' * (len(numbers) > 1)} {named}"


def _row(content: bytes, fields: msgspec.json.Decoder) -> dict | None:
    try:
        fields.decode(content)
        return _OBJECT.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
