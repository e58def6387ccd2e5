"""Log files on a full disk: nothing waits, nothing is raised, and nothing is written twice."""

import os

from tests.train.disks import Disk
from train import append_log
from train.append_log import AppendFile


def test_what_a_full_disk_refused_is_written_once_there_is_room(tmp_path, monkeypatch):
    told, path = [], tmp_path / "folder" / "log"
    disk = Disk(monkeypatch, 10)
    file = AppendFile(path, told.append)
    for record in b"first\n", b"second\n", b"third\n":
        file.append(record)
    assert path.read_bytes() == b"first\nseco"
    assert told == [
        f"cannot write {path}: No space left on device; training goes on, and each later event "
        "tries again"
    ]
    disk.room = 6
    file.append(b"fourth\n")
    assert path.read_bytes() == b"first\nsecond\nthi"
    disk.room = 100
    file.close()
    assert path.read_bytes() == b"first\nsecond\nthird\nfourth\n" and len(told) == 1


def test_what_was_never_written_is_counted_and_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(append_log, "_MAX_PENDING_BYTES", 30)
    told, disk = [], Disk(monkeypatch, 0)
    file = AppendFile(tmp_path / "log", told.append)
    for _ in range(10):
        file.append(b"0123456789")
    assert len(file._pending) == 30
    disk.room = 15
    file.close()
    assert (tmp_path / "log").read_bytes() == b"012345678901234"
    assert told[1:] == [f"85 bytes of {tmp_path}/log could not be written"]


def test_a_folder_that_cannot_be_made_and_a_pipe_are_told_and_wait_for_nobody(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, why in (tmp_path / "file" / "log", "File exists"), (tmp_path / "pipe", "No such"):
        told = []
        file = AppendFile(path, told.append)
        file.append(b"x")
        file.close()
        assert why in told[0] and told[1:] == [f"1 bytes of {path} could not be written"]
