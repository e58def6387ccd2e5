"""Exit on thread errors: an uncaught exception in any thread ends the process."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from experiments.signals import exit_now
from train.orbax_errors import first_line


@contextmanager
def exit_on_thread_error(exit_seconds: float = 10.0) -> Iterator[None]:
    """Context in which an uncaught exception in a thread ends the process with 1 and one line.

    If an exception leaves the context, the process ends within `exit_seconds`, with 1 or, for
    Ctrl-C, 130: Python waits at exit for library threads, which may never end after a failure.
    A command runs all its work within it.
    """
    previous, threading.excepthook = threading.excepthook, _report_and_exit
    try:
        yield
    except BaseException as error:
        threading.excepthook = _ignore  # only the first failure is reported
        _exit_within(exit_seconds, _status(error))
        raise
    threading.excepthook = previous


def _report_and_exit(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is SystemExit:  # ends only its thread
        return
    name = failure.thread.name if failure.thread else "that has ended"
    error = failure.exc_value or failure.exc_type()
    reason = f"{type(error).__name__}: {first_line(error)}"
    exit_now(1, f"heed: error: the thread {name} failed: {reason}")


def _ignore(_failure: threading.ExceptHookArgs) -> None:
    pass


def _exit_within(seconds: float, status: int) -> None:
    def flush_and_exit() -> None:
        for stream in sys.stdout, sys.stderr:
            with suppress(Exception):
                stream.flush()
        os._exit(status)

    timer = threading.Timer(seconds, flush_and_exit)
    timer.daemon = True
    with suppress(RuntimeError):  # no thread can be started: rely on Python's exit
        timer.start()


def _status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1
