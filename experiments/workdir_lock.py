"""Workdir lock, and cleanup after a start that was rejected or preempted early."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from data.atomic_write import write_atomic
from data.errors import DataError
from data.printable import printable
from data.regular_file import read_regular
from data.vocabulary import VOCABULARY_FILES
from experiments.lora import BASE
from experiments.signals import cleanup
from experiments.workdir import ATTEMPT_FILES, check_run_folder, has_checkpoint
from model import ConfigError
from train.multihost import PreemptedError


def _remove_untrained(workdir: Path, existing: set[str]) -> None:
    """Remove a run without a checkpoint or a logged step, except the names in `existing`."""
    metrics = workdir / "metrics.jsonl"
    if has_checkpoint(workdir) or (metrics.exists() and metrics.stat().st_size):
        return
    for name in {*ATTEMPT_FILES, *VOCABULARY_FILES} - existing:
        (workdir / name).unlink(missing_ok=True)
    for name in {"checkpoints", "tensorboard", BASE} - existing:
        shutil.rmtree(workdir / name, ignore_errors=True)


@contextmanager
def reserve_workdir(workdir: Path) -> Iterator[None]:
    """Create and lock `workdir`; a start without a first step restores the folder.

    Such a start was rejected, or ended by a signal before its first step. Raises ConfigError if the
    folder is not writable or in use, or if a pipe, for example, is in place of one of its files.
    """
    check_run_folder(workdir)
    created = [path for path in (workdir, *workdir.absolute().parents) if not path.exists()]
    heartbeats, removed = workdir / "heartbeats", workdir / ".heartbeats.gone"
    existing = {path.name for path in workdir.iterdir()} if workdir.exists() else set()

    def restore(preempted: bool = True) -> None:
        if preempted and "config.json" not in existing:
            _remove_untrained(workdir, existing)
        if (workdir / "config.json").exists():
            return
        for file in (workdir / "lock", workdir / "lock.owner"):
            file.unlink(missing_ok=True)
        if heartbeats.exists() and heartbeats.name not in existing:
            heartbeats.rename(removed)  # first, since other processes may still write there
            shutil.rmtree(removed, ignore_errors=True)
        for folder in created:
            with suppress(OSError):  # not empty: another process wrote files there
                folder.rmdir()

    with cleanup(restore) if created else nullcontext():
        workdir.mkdir(parents=True, exist_ok=True)
        with lock(workdir), cleanup(restore):
            preempted = False
            try:
                yield
            except PreemptedError:
                preempted = True
                raise
            finally:
                restore(preempted)


@contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Context in which no other run trains in `workdir`; raises ConfigError if one already does.

    The operating system locks the file `lock`, and releases it when the process exits.
    """
    file_lock = FileLock(workdir / "lock", timeout=0)
    owner_file = workdir / "lock.owner"
    try:
        file_lock.acquire()
    except Timeout:
        raise ConfigError(
            f"--workdir={workdir} is in use: {_owner(owner_file)} trains there; wait, or choose "
            "another folder"
        ) from None
    with file_lock:
        write_atomic(owner_file, f"process {os.getpid()} of {socket.gethostname()}\n".encode())
        yield


def _owner(file: Path) -> str:
    try:
        return printable(read_regular(file, 1000).decode().strip())
    except (DataError, UnicodeDecodeError):  # the owner may not have written it yet
        return "another process"
