"""JSON files decoded to typed values, or rejected with a one-line error."""

import os
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import msgspec
import pytest

from data.errors import DataError
from data.json_file import decode_json, read_json
from data.regular_file import read_regular
from data.text import read_bytes


class Settings(msgspec.Struct):
    layers: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    words: list[str] | None = None
    rate: float = 0.0


def test_a_document_is_decoded_and_unknown_fields_are_ignored(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"layers": 3, "words": ["ä"], "other": {}}')
    assert read_json(file, Settings) == Settings(3, ["ä"])
    assert read_json(tmp_path / "none.json", Settings, Settings()) == Settings()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"layers": "3"}', "layers: expected int, got str"),
        (b'{"layers": true}', "layers: expected int, got bool"),
        (b'{"layers": 11}', "layers: expected int <= 10"),
        (b'{"layers": 1' + b"0" * 400 + b"}", "layers: "),
        (b'{"rate": 1e400}', "rate: number out of range"),
        (b'{"words": ["a", 1]}', "words[1]: expected str, got int"),
        (b"[]", "expected object, got array"),
        (b'{"layers": 1', "is not JSON"),
        (b"", "is not JSON"),
        ("{}".encode("utf-16"), "is not JSON"),
        (b'{"words": ["\xff"]}', "is not JSON"),
        (b'{"words": ["\\ud800"]}', "is not JSON"),
        (b'{"rate": NaN}', "is not JSON"),
        (b'{"other": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_invalid_documents_are_one_line_errors_with_file_and_field(data, message):
    with pytest.raises(DataError) as error:
        decode_json(data, Settings, "config.json")
    assert str(error.value).startswith("config.json") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_long_numbers_are_exact_or_rejected():
    assert decode_json(b"1" + b"0" * 29, Any, "x") == 10**29
    with pytest.raises(DataError):
        decode_json(b"1" + b"0" * 5000, Any, "x")


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(b"12345")
    names = ["pipe", "link", "loop", "device", "large", "missing", ".", "a\0b"]
    for name in names:
        with pytest.raises(DataError) as error:
            read_regular(tmp_path / name, max_bytes=4)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="pipe is not a regular file"):
        read_bytes(tmp_path / "pipe")
    (tmp_path / "good").symlink_to(tmp_path / "large")
    assert read_regular(tmp_path / "good", max_bytes=5) == b"12345"


def test_text_may_come_from_a_pipe():
    """As in translate --input=<(zcat text.gz)."""
    reader, writer = os.pipe()
    thread = Thread(target=lambda: (os.write(writer, b"a\nb\n"), os.close(writer)))
    thread.start()
    thread.join()  # the writer has ended before the pipe is opened again
    assert read_bytes(Path(f"/dev/fd/{reader}"), pipes=True) == b"a\nb\n"
    os.close(reader)


def test_a_pipe_is_read_to_the_end_of_a_writer_that_starts_late(tmp_path):
    path, contents = tmp_path / "pipe", [b"a\nb\n", b""]
    os.mkfifo(path)
    for content in contents:
        read = []
        reader = Thread(target=lambda read=read: read.append(read_bytes(path, pipes=True)))
        reader.start()
        reader.join(0.2)
        assert reader.is_alive()  # it waits, and has not found an empty file
        path.write_bytes(content)
        reader.join(10)
        assert read == [content]
