"""Atomic writes: a file is replaced completely or not at all."""

import errno
import os
from pathlib import Path

import pytest

from data.atomic_write import write_atomic


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_atomic(file, b"old")

    def write_half(path, content):
        with path.open("wb") as out:
            out.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomic(file, b"something new")
    assert caught.value.filename == str(file)
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_it_replaces_files_and_writes_to_devices(tmp_path):
    file = tmp_path / "file"
    for content in b"old", b"new":
        write_atomic(file, content)
        assert file.read_bytes() == content
    write_atomic("/dev/null", b"gone")
    assert not Path("/dev/null").is_file()
