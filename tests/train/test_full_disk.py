"""Failed saves, as on a full disk: one-line errors, and earlier checkpoints stay intact."""

import errno
import json
import os
import threading
import time

import pytest
from orbax.checkpoint import v1 as ocp

from tests.train.failures import one_line
from tests.train.states import META, assert_same, make_state, shapes
from train import checksums
from train.checkpoint import CheckpointError, CheckpointManager, SaveError

pytestmark = pytest.mark.usefixtures("frozen_garbage")


class FailingCall:
    """Replaces a call of Orbax's writer: it raises an error of a full disk."""

    def __init__(self, error):
        self.error = error

    def __call__(self, *_args, **_kwargs):
        raise self.error


def chained_error():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("save failed") from error
    except RuntimeError as error:
        return error


DISK_FULL_ERRORS = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device\nsecond line"),
    chained_error(),
    ExceptionGroup("two threads failed", [KeyError("x"), OSError(errno.ENOSPC, "full")]),
]


@pytest.mark.parametrize("error", DISK_FULL_ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("in_background", [False, True], ids=["at once", "in the background"])
def test_a_full_disk_is_a_one_line_error_and_earlier_checkpoints_are_intact(
    folder, bits, capfd, monkeypatch, error, in_background
):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.wait()
        partial = folder / "2.orbax-checkpoint-tmp"
        partial.mkdir()
        orbax, no_op = ocp.training.Checkpointer, lambda *_args, **_kwargs: None
        with monkeypatch.context() as patch:
            patch.setattr(
                orbax, "save_checkpointables_async", no_op if in_background else FailingCall(error)
            )
            patch.setattr(orbax, "wait", FailingCall(error) if in_background else no_op)
            with pytest.raises(CheckpointError) as raised:
                checkpoints.save(2, state, META)
                checkpoints.wait()
            checkpoints.wait()  # raised only once
        assert "disk is full" in one_line(raised, capfd)
        assert not partial.exists()  # it would fill the disk
    with CheckpointManager(folder) as checkpoints:
        assert_same(bits(checkpoints.restore("last", shapes(state))), bits(state))


@pytest.mark.parametrize(
    ("module", "name", "thread"),
    [
        (os, "rename", "threads"),  # renames a finished save
        (json, "dumps", "threads"),  # writes its description
        (json, "dumps", "anywhere"),
    ],
)
def test_an_error_within_orbax_is_raised_once(
    folder, bits, capfd, caplog, monkeypatch, module, name, thread
):
    state, original = make_state(), getattr(module, name)
    failed = []

    def fail(*args, **options):
        if thread == "threads" and threading.current_thread() is threading.main_thread():
            return original(*args, **options)
        failed.append(name)
        raise OSError(errno.ENOSPC, "No space left on device")

    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(CheckpointError) as error:
                checkpoints.save(2, state, META)
                checkpoints.wait()
        assert failed and "disk is full" in one_line(error, capfd)
        assert not [record for record in caplog.records if "/orbax/" in record.pathname]
        assert checkpoints.steps() == [1]
        checkpoints.save(3, state, META)  # the disk has space again
    assert sorted(os.listdir(folder)) == ["1", "3"]
    with CheckpointManager(folder) as checkpoints:
        assert_same(bits(checkpoints.restore("last", shapes(state))), bits(state))


def test_a_failed_background_save_is_known_before_the_next_one(folder, capfd, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with CheckpointManager(folder) as checkpoints:
        checkpoints.raise_if_save_failed()  # nothing has been saved
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", fail)
            checkpoints.save(1, make_state(), META)
            with pytest.raises(CheckpointError) as error:
                for _ in range(600):
                    checkpoints.raise_if_save_failed()
                    time.sleep(0.05)
        assert "disk is full" in one_line(error, capfd)
        checkpoints.save(2, make_state(), META)
        checkpoints.wait()
        checkpoints.raise_if_save_failed()
        assert checkpoints.steps() == [2]


def test_failed_checksums_are_known_before_the_next_save(folder, capfd, monkeypatch):
    def fail(_folder):
        raise OSError(errno.EIO, "Input/output error")

    with CheckpointManager(folder) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(checksums, "write_checksums", fail)
            checkpoints.save(1, make_state(), META)
            with pytest.raises(SaveError) as error:
                for _ in range(600):
                    checkpoints.raise_if_save_failed()
                    time.sleep(0.05)
        assert "cannot finish the last save" in one_line(error, capfd)
        checkpoints.raise_if_save_failed()  # reported once
        checkpoints.save(2, make_state(), META)
    assert checkpoints.steps() == [1, 2]


def test_partial_saves_of_a_late_writer_are_removed(tmp_path):
    unfinished = tmp_path / "7.orbax-checkpoint-tmp" / "rest"
    unfinished.mkdir(parents=True)
    late = threading.Timer(0.15, lambda: unfinished.mkdir(parents=True, exist_ok=True))
    late.start()
    CheckpointManager(tmp_path)._remove_partial()
    late.join()
    assert not any(tmp_path.iterdir())
