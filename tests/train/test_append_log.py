"""Append-only log files on a full disk: no blocking, no exception, no duplicate records."""

import os

from tests.train.disks import Disk
from train import append_log
from train.append_log import AppendFile


def test_records_are_written_once_the_disk_has_space(tmp_path, monkeypatch):
    warnings, path = [], tmp_path / "folder" / "log"
    disk = Disk(monkeypatch, 10)
    file = AppendFile(path, warnings.append)
    for record in b"first\n", b"second\n", b"third\n":
        file.append(record)
    assert path.read_bytes() == b"first\nseco"
    assert warnings == [
        f"cannot write {path}: No space left on device; training continues, each later event "
        "retries, and what cannot be written by the end is lost"
    ]
    disk.free_bytes = 6
    file.append(b"fourth\n")
    assert path.read_bytes() == b"first\nsecond\nthi"
    disk.free_bytes = 100
    file.close()
    assert path.read_bytes() == b"first\nsecond\nthird\nfourth\n" and len(warnings) == 1


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(append_log, "_MAX_PENDING_BYTES", 30)
    warnings, disk = [], Disk(monkeypatch, 0)
    file = AppendFile(tmp_path / "log", warnings.append)
    for _ in range(10):
        file.append(b"0123456789")
    assert len(file._pending) == 30
    disk.free_bytes = 15
    file.close()
    assert (tmp_path / "log").read_bytes() == b"012345678901234"
    assert len(warnings) == 1


def test_unwritable_paths_and_pipes_are_reported_without_blocking(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (tmp_path / "file" / "log", "File exists"), (tmp_path / "pipe", "No such"):
        warnings = []
        file = AppendFile(path, warnings.append)
        file.append(b"x")
        file.close()
        assert reason in warnings[0] and len(warnings) == 1
