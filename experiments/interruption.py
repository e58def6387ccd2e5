"""SIGTERM, by which clusters announce that a machine is to be given up."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from experiments.console import end_at_once
from train.together import Agreement, Interrupted


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """Within it SIGTERM raises Interrupted in the main thread: there is nothing to save."""

    def handle(*_) -> None:
        raise Interrupted("SIGTERM")

    with _handling(handle):
        yield


def stopper(interrupted: Callable[[int], str], lag: int = 0) -> Callable[[int], None]:
    """A function of the step that raises Interrupted in all processes where one is interrupted.

    All of them call it alike; `lag` is that of Agreement.
    """
    agree = Agreement(("SIGTERM",), lag)

    def stop(step: int) -> None:
        if reasons := agree({interrupted(step)} - {""}):
            raise Interrupted(reasons.pop())

    return stop


@contextmanager
def on_sigterm(grace_seconds: float) -> Iterator[Callable[[int], str]]:
    """Within it SIGTERM ends nothing at once: the function that it yields names it from then on.

    Whoever asks has `grace_seconds` to save what there is; after that the process ends with
    status 1 and says so.
    """
    came = threading.Event()
    late = threading.Timer(grace_seconds, _give_up, [grace_seconds])
    late.daemon = True

    def handle(*_) -> None:
        if not came.is_set():
            came.set()
            late.start()

    def interrupted(_step: int) -> str:
        return "SIGTERM" if came.is_set() else ""

    try:
        with _handling(handle):
            yield interrupted
    finally:
        late.cancel()


@contextmanager
def _handling(handle: Callable) -> Iterator[None]:
    """Signals reach the main thread only: in others SIGTERM stays what it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _give_up(grace_seconds: float) -> None:
    end_at_once(
        f"SIGTERM: the run could not be saved within {grace_seconds:g} seconds: "
        "raise --config.train.grace_seconds; the same command goes on from the checkpoint before"
    )
