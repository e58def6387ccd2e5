"""Signal handling of commands: Ctrl-C prints one line and exits with status 130, at any time.

Python would raise KeyboardInterrupt between any two instructions. In a callback, a destructor or an
import that exception is printed and lost, or replaced, and the command continues. So a handler
raises no exception: it ends the process itself, or sets a flag if there is something to save.
Python runs handlers in the main thread, after it returns from library code. A second thread
therefore listens for signals too, and ends the process if the main thread does not react.

This module imports only light modules, because it is loaded first.
"""

import atexit
import os
import signal
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from signal import SIGINT

INTERRUPTED = 128 + SIGINT  # the exit status, as in shells
_REACTION_SECONDS = 0.3  # time for the main thread to react to a signal

# The action; whether it ends the process; whether a second Ctrl-C ends the process immediately.
_Reaction = namedtuple("_Reaction", "action exits exit_on_second")

_reactions: dict[int, _Reaction] = {}  # by the signal's number
_cleanups: list[Callable[[], None]] = []
_exit_lock = threading.RLock()
_exit_status: list[int] = []  # set once the process is exiting


def install_sigint_handler() -> None:
    """Make Ctrl-C end this process. Only for commands, whose main thread calls it first.

    If SIGINT is ignored, as in background jobs of a shell, it stays ignored.
    """
    if SIGINT in _reactions:
        return
    if signal.getsignal(SIGINT) is signal.SIG_IGN:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGINT})
        return
    _reactions[SIGINT] = _Reaction(interrupt, exits=True, exit_on_second=True)
    signal.signal(SIGINT, _handle)
    # It was blocked by experiments/__init__.py or a launcher.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGINT})
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=[reader], name="signals", daemon=True).start()
    atexit.register(signal.signal, SIGINT, signal.SIG_IGN)  # runs last, when all work is done


def interrupt() -> None:
    """End the process as Ctrl-C does."""
    exit_now(INTERRUPTED, "heed: interrupted")


def exit_now(status: int, message: str, result: str = "") -> None:
    """Exit immediately with `message` on stderr and `result` on stdout; any thread may call it.

    The actions of `cleanup` run first.
    """
    with _exit_lock:
        if _exit_status:
            return  # a second signal, during this function
        _exit_status.append(status)
        for action in reversed(_cleanups):
            with suppress(Exception):  # nothing may prevent the exit
                action()
        for number, line in (1, result), (2, message):
            # Clear the line of a progress bar, and show the cursor that it hides.
            clear = "\r\x1b[K\x1b[?25h" if number == 2 and os.isatty(2) else ""
            with suppress(OSError):
                os.write(number, f"{clear}{line}\n".encode(errors="replace") if line else b"")
        os._exit(status)


@contextmanager
def cleanup(action: Callable[[], None]) -> Iterator[None]:
    """Context in which `exit_now` calls `action`, even if the body is interrupted."""
    _cleanups.append(action)
    try:
        yield
    finally:
        _cleanups.remove(action)


@contextmanager
def handling(
    number: int, action: Callable[[], object], exits: bool = False, exit_on_second: bool = True
) -> Iterator[None]:
    """Context in which the signal calls `action` in the main thread.

    If the main thread stays in library code, an `action` that `exits` is called in another thread,
    and with `exit_on_second` a second Ctrl-C ends the process. Outside of commands the handling of
    Ctrl-C is unchanged; outside of the main thread, that of all signals.
    """
    handled = number != SIGINT or number in _reactions
    if not handled or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous, handler = _reactions.get(number), signal.getsignal(number)
    _reactions[number] = _Reaction(action, exits, exit_on_second)
    signal.signal(number, _handle)
    try:
        yield
    finally:
        signal.signal(number, handler)
        if previous is None:
            del _reactions[number]
        else:
            _reactions[number] = previous


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Context in which new processes start with SIGINT blocked; a command unblocks it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _handle(number: int, _frame) -> None:
    if reaction := _reactions.get(number):
        reaction.action()


def _listen(reader: int) -> None:
    """Receive each signal immediately, whatever the main thread is doing."""
    interrupts = 0
    while True:
        for number in os.read(reader, 64):
            interrupts += number == SIGINT
            reaction = _reactions.get(number)
            if reaction is None:
                continue
            if number == SIGINT and interrupts > 1 and reaction.exit_on_second:
                interrupt()
            if reaction.exits:
                time.sleep(_REACTION_SECONDS)
                if _reactions.get(number) is reaction:
                    reaction.action()
