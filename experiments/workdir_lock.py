"""Lock on a workdir, and its restoration after a start that leaves no run there."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from data.atomic_write import write_atomic
from data.vocabulary import VOCABULARY_FILES
from experiments.lora import BASE
from experiments.signals import cleanup
from experiments.workdir import ATTEMPT_FILES, check_folder, has_checkpoint
from model import ConfigError
from train.multihost import PreemptedError


def _discard_untrained(workdir: Path, before: set[str]) -> None:
    """Remove a run that has neither a checkpoint nor a logged step, but nothing of `before`."""
    metrics = workdir / "metrics.jsonl"
    if has_checkpoint(workdir) or (metrics.exists() and metrics.stat().st_size):
        return
    for name in {*ATTEMPT_FILES, *VOCABULARY_FILES} - before:
        (workdir / name).unlink(missing_ok=True)
    for name in {"checkpoints", "tensorboard", BASE} - before:
        shutil.rmtree(workdir / name, ignore_errors=True)


@contextmanager
def reserve_workdir(workdir: Path) -> Iterator[None]:
    """Create and lock `workdir`; a start that leaves no run there restores it as it was before.

    That is a start that was rejected, or one that a signal ended before its first step. Raises
    ConfigError where the folder cannot be written to, or is in use.
    """
    check_folder(workdir)
    made = [path for path in (workdir, *workdir.absolute().parents) if not path.exists()]
    hosts, gone = workdir / "heartbeats", workdir / ".heartbeats.gone"
    before = {path.name for path in workdir.iterdir()} if workdir.exists() else set()

    def restore(preempted: bool = True) -> None:
        if preempted and "config.json" not in before:
            _discard_untrained(workdir, before)
        if (workdir / "config.json").exists():
            return
        for file in (workdir / "lock", workdir / "lock.owner"):
            file.unlink(missing_ok=True)
        if hosts.exists() and hosts.name not in before:
            hosts.rename(gone)  # first, since other processes may still write there
            shutil.rmtree(gone, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # where there is something of others in it
                folder.rmdir()

    with cleanup(restore) if made else nullcontext():
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
    """Within it no other run trains in `workdir`; raises ConfigError if one does already.

    The lock is the operating system's, on the file `lock`, and ends with the process.
    """
    mine = FileLock(workdir / "lock", timeout=0)
    who = workdir / "lock.owner"
    try:
        mine.acquire()
    except Timeout:
        owner = who.read_text("utf-8").strip() if who.exists() else "another process"
        raise ConfigError(
            f"--workdir={workdir} is in use: {owner} trains there; wait, or choose another folder"
        ) from None
    with mine:
        write_atomic(who, f"process {os.getpid()} of {socket.gethostname()}\n".encode())
        yield
