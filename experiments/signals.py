"""Ctrl-C in commands: one line and exit status 130, at any moment.

Python would raise KeyboardInterrupt between any two instructions. Within a callback, a destructor
or an import that exception is printed and lost, or becomes another one, and the command continues.
So nothing is raised: a handler ends the process itself, or sets a flag where there is something to
save. Python runs handlers in the main thread, once that leaves the library that it is in. A second
thread therefore hears of signals too, and ends the process where the main thread does not.

This module imports nothing heavy, since it must be there before anything else is imported.
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

INTERRUPTED = 128 + SIGINT  # the exit status, as shells have it
_PATIENCE = 0.3  # seconds that the main thread has to answer a signal


# What to call; whether that ends the process; whether a second Ctrl-C does, at once.
_Reaction = namedtuple("_Reaction", "act ends again")

_reactions: dict[int, _Reaction] = {}  # by the signal's number
_cleanups: list[Callable[[], None]] = []
_leaving = threading.RLock()
_left: list[int] = []  # the exit status, once the process is being ended


def begin() -> None:
    """Have Ctrl-C end this process. For commands alone, whose main thread calls it first of all.

    Where SIGINT is ignored, as in a shell's background jobs, it stays so.
    """
    if SIGINT in _reactions:
        return
    if signal.getsignal(SIGINT) is signal.SIG_IGN:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGINT})
        return
    _reactions[SIGINT] = _Reaction(interrupt, ends=True, again=True)
    signal.signal(SIGINT, _handle)
    # experiments/__init__.py, or a launcher, has it wait until now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGINT})
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=[reader], name="signals", daemon=True).start()
    atexit.register(signal.signal, SIGINT, signal.SIG_IGN)  # runs last: all is done by then


def interrupt() -> None:
    """End the process as Ctrl-C does."""
    leave(INTERRUPTED, "heed: interrupted")


def leave(status: int, message: str, result: str = "") -> None:
    """End the process at once, with a line on stderr and one on stdout; any thread may call it.

    What `cleanup` registered is done before.
    """
    with _leaving:
        if _left:
            return  # a second signal, within this very function
        _left.append(status)
        for action in reversed(_cleanups):
            with suppress(Exception):  # nothing may keep the process
                action()
        for number, line in (1, result), (2, message):
            # A bar's line is cleared, and the cursor that it hides is shown.
            clear = "\r\x1b[K\x1b[?25h" if number == 2 and os.isatty(2) else ""
            with suppress(OSError):
                os.write(number, f"{clear}{line}\n".encode(errors="replace") if line else b"")
        os._exit(status)


@contextmanager
def cleanup(action: Callable[[], None]) -> Iterator[None]:
    """Have `leave` call `action` within it, at any moment, also in the middle of it."""
    _cleanups.append(action)
    try:
        yield
    finally:
        _cleanups.remove(action)


@contextmanager
def handling(
    number: int, act: Callable[[], object], ends: bool = False, again: bool = True
) -> Iterator[None]:
    """Within it the signal calls `act` in the main thread.

    Where that is inside of a library for long, an `act` that `ends` the process is called in
    another thread, and with `again` a second Ctrl-C ends the process. Outside of commands Ctrl-C
    stays what it was; outside of the main thread all signals do.
    """
    ours = number != SIGINT or number in _reactions
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, handler = _reactions.get(number), signal.getsignal(number)
    _reactions[number] = _Reaction(act, ends, again)
    signal.signal(number, _handle)
    try:
        yield
    finally:
        signal.signal(number, handler)
        if before is None:
            del _reactions[number]
        else:
            _reactions[number] = before


@contextmanager
def held_back() -> Iterator[None]:
    """Processes that are started within it hear of no Ctrl-C, until they `begin` themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handle(number: int, _frame) -> None:
    if reaction := _reactions.get(number):
        reaction.act()


def _listen(reader: int) -> None:
    """Hear of each signal when it comes, whatever the main thread is doing."""
    interrupts = 0
    while True:
        for number in os.read(reader, 64):
            interrupts += number == SIGINT
            reaction = _reactions.get(number)
            if reaction is None:
                continue
            if number == SIGINT and interrupts > 1 and reaction.again:
                interrupt()
            if reaction.ends:
                time.sleep(_PATIENCE)
                if _reactions.get(number) is reaction:
                    reaction.act()
