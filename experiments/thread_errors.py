"""An uncaught exception in any thread ends the process."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from experiments.signals import leave
from train.orbax_errors import first_line


@contextmanager
def ends_the_process(exit_seconds: float = 10.0) -> Iterator[None]:
    """Context in which an uncaught exception in a thread ends the process with 1 and one line.

    If an exception leaves the context, the process ends within `exit_seconds`, with 1 or, for
    Ctrl-C, 130: library threads may never end after a failure, and Python waits for them at exit.
    Commands use it around all their work.
    """
    previous, threading.excepthook = threading.excepthook, _end
    try:
        yield
    except BaseException as error:
        threading.excepthook = _ignore  # only the first failure is reported
        _end_within(exit_seconds, _status(error))
        raise
    threading.excepthook = previous


def _end(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is SystemExit:  # which ends its thread quietly
        return
    name = failure.thread.name if failure.thread else "that has ended"
    error = failure.exc_value or failure.exc_type()
    reason = f"{type(error).__name__}: {first_line(error)}"
    leave(1, f"heed: error: the thread {name} failed: {reason}")


def _ignore(_failure: threading.ExceptHookArgs) -> None:
    pass


def _end_within(seconds: float, status: int) -> None:
    def end() -> None:
        for stream in sys.stdout, sys.stderr:
            with suppress(Exception):
                stream.flush()
        os._exit(status)

    late = threading.Timer(seconds, end)
    late.daemon = True
    with suppress(RuntimeError):  # no thread can be started: rely on Python's exit
        late.start()


def _status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1
