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
    """Within it an exception that a thread does not catch ends the process with 1 and one line.

    If an exception leaves it, the process ends within `exit_seconds`, with 1 or, of Ctrl-C, 130:
    a library's threads may never end after a failure, and Python waits for them at its exit. To be
    used by commands, around all that they do.
    """
    before, threading.excepthook = threading.excepthook, _end
    try:
        yield
    except BaseException as error:
        threading.excepthook = _ignore  # the first failure is the one to tell
        _end_within(exit_seconds, _status(error))
        raise
    threading.excepthook = before


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
    with suppress(RuntimeError):  # no thread can be started: then Python's own exit has to do
        late.start()


def _status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1
