"""Local parallel text: one file per language, TSV, or JSON lines; plain or gzip."""

import gzip
import json
import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from data.errors import DataError
from data.pairs import ParallelText
from data.regular_file import check_holes, open_regular

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MIN_LIMIT, _MAX_RATIO = 64 << 20, 100  # limits on unpacked .gz bytes; text compresses about 4:1
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_lines(path: Path, pipes: bool = False) -> list[str]:
    """Read the lines of a text file, plain or gzip, split by `split_lines`.

    `pipes` as in `open_regular`. Raises DataError if the file is missing, empty, blank, corrupt or
    not UTF-8 (with the line).
    """
    data = read_bytes(path, pipes)
    text = data.removeprefix(_BYTE_ORDER_MARK)
    if not text.strip():
        raise DataError(f"{path} has only blank lines" if text else f"{path} is empty")
    return split_lines(data, str(path))


def read_bytes(path: Path, pipes: bool = False) -> bytes:
    """Read a file, or with `pipes` a pipe, unpacked if its name ends in .gz. Raises DataError."""
    with open_regular(path, pipes) as file:
        check_holes(file, path)
        try:
            return _unpack(file, path) if path.suffix == ".gz" else file.read()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None


def _unpack(file: BinaryIO, path: Path) -> bytes:
    limit = max(_MIN_LIMIT, _MAX_RATIO * os.fstat(file.fileno()).st_size)
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            data = unpacked.read(limit + 1)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}") from None
    if len(data) > limit:
        raise DataError(
            f"{path} unpacks to more than {limit:,} bytes, too much for a file of its size: "
            "if the file is correct, unpack it first"
        )
    return data


def split_lines(data: bytes, context: str) -> list[str]:
    """Decode UTF-8 and split it at line feeds only; the last one is optional. No data, no lines.

    A byte order mark and carriage returns at the ends of lines are removed. Raises DataError,
    which names `context` and the line, if the data is not UTF-8.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{context}, line {line}: not valid UTF-8: convert the text, or remove the line"
        ) from None
    if not text:
        return []
    lines = text.removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines] if "\r" in text else lines


def _find_file(folder: str, name: str) -> Path:
    """Find a file by its name, plain or gzip. Raises DataError, which lists the folder."""
    for candidate in (Path(folder, name), Path(folder, f"{name}.gz")):
        if os.path.lexists(candidate):
            return candidate
    if not Path(folder).is_dir():
        raise DataError(f"data.path={folder} is not a folder")
    listing = ", ".join(sorted(p.name for p in Path(folder).iterdir())[:20]) or "nothing"
    raise DataError(f"{Path(folder, name)} is missing, also as .gz; the folder has: {listing}")


def read_text(path: str, split: str, languages: tuple[str, str]) -> ParallelText:
    """Read {split}.{language} in the folder `path`, or the files that `path` itself names."""
    if "=" in path and not Path(path).is_dir():
        paths = dict(part.strip().split("=", 1) for part in path.split(";") if "=" in part)
        files = [Path(name.strip()) for name in paths.get(split, "").split(",")]
        if len(files) != 2:
            raise DataError(
                f"data.path={path} does not name two files for the {split} split: "
                "write train=A,B;valid=C,D;test=E,F"
            )
        return read_parallel(files[0], files[1], pipes=True)
    source, target = (_find_file(path, f"{split}.{language}") for language in languages)
    return read_parallel(source, target)


def _strip_blank_lines(lines: list[str]) -> list[str]:
    """Remove blank lines at the end, which some tools write."""
    count = len(lines)
    while count and not lines[count - 1].strip(" "):
        count -= 1
    return lines[:count]


def read_parallel(source: Path, target: Path, pipes: bool = False) -> ParallelText:
    """Read two files in which equal line numbers are translations. Raises DataError.

    `pipes` as in `open_regular`: for files that a flag names, where a user may wait for a writer.
    """
    sides = read_lines(source, pipes), read_lines(target, pipes)
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{source} has {len(sides[0])} lines, but {target} has {len(sides[1])}: "
            "line n of one must be the translation of line n of the other"
        )
    return ParallelText(*sides, (str(source), str(target)))


def read_tsv(path: str, split: str, languages: tuple[str, str]) -> ParallelText:
    """Read {split}.tsv: source, tab, target; or any columns with a header of language codes.

    Blank lines at the end are ignored.
    """
    file = _find_file(path, f"{split}.tsv")
    rows = [line.split("\t") for line in _strip_blank_lines(read_lines(file))]
    columns, width, first_line = [0, 1], 2, 1
    if set(languages) <= set(rows[0]):
        columns, width, first_line = list(map(rows[0].index, languages)), len(rows[0]), 2
        rows = rows[1:]
        if not rows:
            raise DataError(f"{file} has only a header of language codes")
    for number, row in enumerate(rows, first_line):
        if len(row) != width:
            raise DataError(
                f"{file}, line {number}: {len(row)} columns instead of {width} (a tab between)"
            )
    source, target = ([row[column] for row in rows] for column in columns)
    return ParallelText(source, target, (str(file), str(file)), first_line)


def read_jsonl(path: str, split: str, languages: tuple[str, str]) -> ParallelText:
    """Read {split}.jsonl: {"en": ..., "de": ...} per line, or that within {"translation": ...}.

    A line break within a sentence becomes a space. Blank lines at the end are ignored.
    """
    file = _find_file(path, f"{split}.jsonl")
    sides: tuple[list[str], list[str]] = ([], [])
    for number, line in enumerate(_strip_blank_lines(read_lines(file)), 1):
        if not line.strip():
            raise DataError(f"{file}, line {number}: blank, but not at the end: remove it")
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            reason = f"{error.msg} at column {error.colno}"
            raise DataError(f"{file}, line {number}: not JSON: {reason}") from None
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{file}, line {number}: not JSON: {reason}") from None
        if isinstance(row, dict) and isinstance(row.get("translation"), dict):
            row = row["translation"]
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number}: not a JSON object")
        for side, language in zip(sides, languages, strict=True):
            if not isinstance(row.get(language), str):
                raise DataError(f"{file}, line {number}: no text under the key {language!r}")
            if _SURROGATE.search(row[language]):  # from an escape: UTF-8 cannot represent it
                raise DataError(f"{file}, line {number}: an unpaired surrogate in {language!r}")
            side.append(row[language].replace("\n", " "))
    return ParallelText(*sides, (str(file), str(file)))
