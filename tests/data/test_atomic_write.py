"""Atomic writes: a file is replaced completely or not at all."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.atomic_write import write_atomic, write_output


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


def test_it_replaces_files_and_keeps_links(tmp_path):
    file, link = tmp_path / "file", tmp_path / "folder" / "link"
    link.parent.mkdir()
    link.symlink_to("../file")  # does not exist yet
    for content in b"old", b"new":
        for path in file, link:
            write_atomic(path, content)
            assert file.read_bytes() == content and link.is_symlink()
    assert os.listdir(link.parent) == ["link"]
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write_atomic(link, b"x")
    assert link.is_symlink()


def test_pipes_and_devices_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in tmp_path / "pipe", tmp_path / "link", Path("/dev/null"):
        with pytest.raises(OSError, match="not a regular file: remove or rename it") as caught:
            write_atomic(path, b"x")
        assert caught.value.filename == str(path)
    write_output("/dev/null", b"gone")
    assert Path("/dev/null").is_char_device() and (tmp_path / "pipe").is_fifo()
    with pytest.raises(IsADirectoryError):
        write_output(tmp_path, b"x")


def test_an_output_may_be_a_pipe_or_an_open_file(tmp_path):
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        write_output(pipe, b"through the pipe")
        assert read.result() == b"through the pipe" and pipe.is_fifo()
    file.write_bytes(b"first,")
    inode = file.stat().st_ino
    with file.open("ab") as opened:  # as in `command --output=/dev/stdout >> file`
        link = tmp_path / "stdout"  # like /dev/stdout
        link.symlink_to(f"/proc/self/fd/{opened.fileno()}")
        for path in link, f"/dev/fd/{opened.fileno()}", f"/proc/self/fd/{opened.fileno()}":
            write_output(path, b"next,")
        opened.write(b"last")
    assert file.read_bytes() == b"first,next,next,next,last" and file.stat().st_ino == inode
    assert link.is_symlink() and sorted(os.listdir(tmp_path)) == ["file", "pipe", "stdout"]


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    (tmp_path / "file").touch()
    for path in tmp_path / "missing" / "x.html", tmp_path / "file" / "x.html":
        with pytest.raises(OSError) as caught:
            write_output(path, b"x")
        assert caught.value.filename == str(path) and caught.value.filename2 is None
