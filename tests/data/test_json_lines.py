"""Corrupt lines of a run's files are skipped and listed."""

import os

import msgspec
import pytest

from data import json_lines
from data.errors import DataError
from data.json_lines import iter_json_lines, read_json_lines, unusable_lines


class Row(msgspec.Struct):
    step: int
    loss: float | None = None


UNUSABLE = {
    "a list": b"[]",
    "a word": b'"step"',
    "missing field": b"{}",
    "wrong type": b'{"step": "1"}',
    "infinity": b'{"step": 1, "loss": Infinity}',
    "beyond a float": b'{"step": 1, "loss": 1e999}',
    "an integer of 4,000 digits": b'{"step": 1, "loss": ' + b"9" * 4000 + b"}",
    "a long integer in an unknown field": b'{"step": 1, "other": ' + b"9" * 4000 + b"}",
    "deep nesting": b'{"step": 1, "other": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "half a surrogate pair": b'{"step": 1, "other": "\\ud800"}',
    "another encoding": b'{"step": 1, "other": "\xff"}',
    "zeros": bytes(100),
    "truncated line": b'{"step": 1, "lo',
}


def test_unusable_lines_are_skipped_and_listed(tmp_path):
    file = tmp_path / "rows.jsonl"
    good = b'{"step": 1, "loss": 0.5, "more": [1, "x"]}\n'
    file.write_bytes(b"".join(good + line + b"\n\n" for line in UNUSABLE.values()) + good.strip())
    result = read_json_lines(file, Row)
    assert result.rows == [{"step": 1, "loss": 0.5, "more": [1, "x"]}] * (len(UNUSABLE) + 1)
    assert result.unusable == [3 * i + 2 for i in range(len(UNUSABLE))]
    message = unusable_lines(file, result.unusable)
    assert (
        message == f"{file}: 13 unusable lines were skipped: lines 2, 5, 8, 11, 14, 17, 20, 23, ..."
    )
    assert unusable_lines("f", [7]) == "f: 1 unusable line was skipped: line 7"


def test_a_missing_file_has_no_lines_and_only_line_feeds_end_lines(tmp_path):
    assert read_json_lines(tmp_path / "none", Row) == ([], [])
    (tmp_path / "rows").write_bytes('{"step": 1, "text": "a\u2028b\x85c"}\r\n'.encode())
    assert read_json_lines(tmp_path / "rows", Row).rows == [{"step": 1, "text": "a\u2028b\x85c"}]


def test_an_endless_line_is_one_unusable_line(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "_MAX_LINE_BYTES", 100)
    (tmp_path / "rows").write_bytes(b"[" * 1050 + b'\n{"step": 1}\n' + b"[" * 300)
    lines = list(iter_json_lines(tmp_path / "rows", Row))
    assert [(line.number, line.row) for line in lines] == [(1, None), (2, {"step": 1}), (3, None)]
    assert max(len(line.content) for line in lines) == 100


def test_pipes_and_large_files_are_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is not a regular file"):
        read_json_lines(tmp_path / "pipe", Row)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(DataError, match="sparse has 2,147,483,648 bytes; at most"):
        read_json_lines(tmp_path / "sparse", Row)
