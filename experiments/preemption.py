"""SIGTERM and Ctrl-C during training: save a checkpoint first.

SIGTERM is what clusters send before they take a machine back.
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
    """Within it SIGTERM and Ctrl-C set a flag: the function that it yields names the first one.

    Whoever asks has `grace_seconds` to save what there is; after that the process ends and says
    so. A second Ctrl-C ends it at once. Ctrl-C is handled in commands alone (signals.handling).
    """
    came: list[str] = []
    timers: list[threading.Timer] = []

    def hear(name: str) -> None:
        if not came:
            came.append(name)
            timers.append(threading.Timer(grace_seconds, _give_up, [name, grace_seconds]))
            timers[0].daemon = True
            timers[0].start()

    def interrupted(_step: int) -> str:
        return came[0] if came else ""

    try:
        with (
            handling(SIGTERM, partial(hear, "SIGTERM")),
            handling(SIGINT, partial(hear, "SIGINT")),
        ):
            yield interrupted
    finally:
        for timer in timers:
            timer.cancel()


@contextmanager
def exit_on_signal(terminated: Callable[[], object] | None) -> Iterator[None]:
    """Within `catch_signals`, in a command of one process: signals end the process at once.

    SIGTERM calls `terminated`, which ends it; None: this is no command. Several processes have to
    end together, by the flag.
    """
    if terminated is None or jax.distributed.is_initialized():
        yield
        return
    with handling(SIGTERM, terminated, ends=True), handling(SIGINT, interrupt, ends=True):
        yield


@contextmanager
def flagged() -> Iterator[Callable[[], None]]:
    """Within it a Ctrl-C raises Interrupted where the function that it yields is called."""
    came: list[str] = []
    with handling(SIGINT, partial(came.append, "SIGINT")):

        def check() -> None:
            if came:
                raise PreemptedError("SIGINT")

        yield check


def make_stop_check(interrupted: Callable[[int], str], lag: int = 0) -> Callable[[int], None]:
    """A function of the step that raises Interrupted in all processes where one is interrupted.

    All of them call it alike; `lag` is that of Agreement.
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
        "raise --config.train.grace_seconds; the same command goes on from the checkpoint before",
    )
