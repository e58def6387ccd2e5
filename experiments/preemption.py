"""SIGTERM and Ctrl-C during training: save a checkpoint first.

Clusters send SIGTERM before they reclaim a machine.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from signal import SIGINT, SIGTERM

import jax

from experiments.signals import INTERRUPTED, handling, interrupt, leave
from train.multihost import AnyReduce, PreemptedError

REASONS = ("SIGINT", "SIGTERM")


@contextmanager
def catch_signals(grace_seconds: float) -> Iterator[Callable[[int], str]]:
    """Context in which SIGTERM and Ctrl-C set a flag; yields a function that names the first one.

    After the signal the caller has `grace_seconds` to save; then the process ends with an error. A
    second Ctrl-C ends it at once. Ctrl-C is handled only in commands (signals.handling).
    """
    received: list[str] = []
    timers: list[threading.Timer] = []

    def on_signal(name: str) -> None:
        if not received:
            received.append(name)
            timers.append(threading.Timer(grace_seconds, _give_up, [name, grace_seconds]))
            timers[0].daemon = True
            timers[0].start()

    def interrupted(_step: int) -> str:
        return received[0] if received else ""

    try:
        with (
            handling(SIGTERM, partial(on_signal, "SIGTERM")),
            handling(SIGINT, partial(on_signal, "SIGINT")),
        ):
            yield interrupted
    finally:
        for timer in timers:
            timer.cancel()


@contextmanager
def exit_on_signal(terminated: Callable[[], object] | None) -> Iterator[None]:
    """Within `catch_signals`, for a single-process command: signals end the process at once.

    SIGTERM calls `terminated`, which ends the process; None outside of commands. Several processes
    must end together, by the flag.
    """
    if terminated is None or jax.distributed.is_initialized():
        yield
        return
    with handling(SIGTERM, terminated, ends=True), handling(SIGINT, interrupt, ends=True):
        yield


@contextmanager
def flagged() -> Iterator[Callable[[], None]]:
    """Context in which the yielded function raises PreemptedError after a Ctrl-C."""
    received: list[str] = []
    with handling(SIGINT, partial(received.append, "SIGINT")):

        def check() -> None:
            if received:
                raise PreemptedError("SIGINT")

        yield check


def make_stop_check(interrupted: Callable[[int], str], lag: int = 0) -> Callable[[int], None]:
    """Return a function of the step that raises PreemptedError in all processes after a signal.

    All processes must call it at the same steps; `lag` as in AnyReduce.
    """
    agree = AnyReduce(REASONS, lag)

    def stop(step: int) -> None:
        if reasons := agree({interrupted(step)} - {""}):
            raise PreemptedError(min(reasons))

    return stop


def _give_up(name: str, grace_seconds: float) -> None:
    leave(
        INTERRUPTED if name == "SIGINT" else 1,
        f"heed: error: {name}: the run could not be saved within {grace_seconds:g} seconds: "
        "raise --config.train.grace_seconds; run the same command to resume from the "
        "previous checkpoint",
    )
