"""Preemption: SIGTERM and Ctrl-C save a checkpoint before training ends.

Clusters send SIGTERM before they reclaim a machine.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from signal import SIGINT, SIGTERM

import jax

from experiments.signals import INTERRUPTED, exit_now, handling, interrupt
from train.multihost import AnyReduce, PreemptedError

REASONS = ("SIGINT", "SIGTERM")


@contextmanager
def catch_signals(grace_seconds: float) -> Iterator[Callable[[int], str]]:
    """Context in which SIGTERM and Ctrl-C set a flag; yields a function that names the first one.

    After the signal the caller has `grace_seconds` to save; then the process ends with an error. A
    second Ctrl-C ends it immediately. Ctrl-C is handled only in commands (signals.handling).
    """
    received: list[str] = []
    timers: list[threading.Timer] = []

    def on_signal(name: str) -> None:
        if not received:
            received.append(name)
            timers.append(threading.Timer(grace_seconds, _grace_expired, [name, grace_seconds]))
            timers[0].daemon = True
            timers[0].start()

    def received_signal(_step: int) -> str:
        return received[0] if received else ""

    try:
        with (
            handling(SIGTERM, partial(on_signal, "SIGTERM")),
            handling(SIGINT, partial(on_signal, "SIGINT")),
        ):
            yield received_signal
    finally:
        for timer in timers:
            timer.cancel()


@contextmanager
def exit_on_signal(on_sigterm: Callable[[], object] | None) -> Iterator[None]:
    """Within `catch_signals`, for a single-process command: signals end the process immediately.

    SIGTERM calls `on_sigterm`, which ends the process; None outside of commands. Several processes
    must end together, by the flag.
    """
    if on_sigterm is None or jax.distributed.is_initialized():
        yield
        return
    with handling(SIGTERM, on_sigterm, exits=True), handling(SIGINT, interrupt, exits=True):
        yield


@contextmanager
def sigint_check() -> Iterator[Callable[[], None]]:
    """Context in which the yielded function raises PreemptedError after a Ctrl-C."""
    received: list[str] = []
    with handling(SIGINT, partial(received.append, "SIGINT")):

        def check() -> None:
            if received:
                raise PreemptedError("SIGINT")

        yield check


def make_stop_check(stop_requested: Callable[[int], str], lag: int = 0) -> Callable[[int], None]:
    """Return a function of the step that raises PreemptedError in all processes after a signal.

    All processes must call it at the same steps; `lag` as in AnyReduce.
    """
    any_process = AnyReduce(REASONS, lag)

    def stop(step: int) -> None:
        if reasons := any_process({stop_requested(step)} - {""}):
            raise PreemptedError(min(reasons))

    return stop


def _grace_expired(name: str, grace_seconds: float) -> None:
    exit_now(
        INTERRUPTED if name == "SIGINT" else 1,
        f"heed: error: {name}: the run could not be saved within {grace_seconds:g} seconds: "
        "raise --config.train.grace_seconds; run the same command to resume from the "
        "previous checkpoint",
    )
