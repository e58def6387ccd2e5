"""Checkpoint names: a step, last, best, averages, ema.

| name              | weights                                                                  |
|-------------------|--------------------------------------------------------------------------|
| 1000              | of that step                                                             |
| last, best        | of the last step; of that with the highest BLEU                          |
| average:5         | the mean of the last 5 checkpoints (paper 6.1 has 5 for base, 20 for big) |
| average:best:5    | of the 5 best                                                            |
| average:1000+2000 | of these steps                                                           |
| ema               | the parameters' moving average as of the last step                       |
| params:NAME       | of NAME, but never their moving average                                  |

A run that keeps a moving average is evaluated and tested by it, and so are its single checkpoints;
means are of the parameters themselves.
"""

from collections.abc import Sequence
from typing import NamedTuple

CheckpointSpec = int | str


class CheckpointError(ValueError):
    """A checkpoint that is not there, does not fit, or could not be written; one line."""


class ResolvedCheckpoint(NamedTuple):
    """The steps whose weights are averaged, and which: params, ema, or "", what the run uses."""

    steps: tuple[int, ...]
    part: str = ""


def choose(
    which: CheckpointSpec, steps: Sequence[int], ranked: Sequence[int]
) -> ResolvedCheckpoint:
    """What `which` means, given the steps that there are, and those with a score, best first.

    Raises CheckpointError, telling what there is, for a name that means nothing here.
    """
    name, _, rest = str(which).partition(":")
    there = f"there are: {', '.join(map(str, steps))}"
    if not steps:
        raise CheckpointError("no checkpoints: train first")
    if name == "params" and rest:
        return choose(rest, steps, ranked)._replace(part="params")
    if name == "average" and rest:
        return ResolvedCheckpoint(_several(rest, steps, ranked, there), "params")
    if which == "ema":
        return ResolvedCheckpoint((steps[-1],), "ema")
    if which == "last":
        return ResolvedCheckpoint((steps[-1],))
    if which == "best":
        if not ranked and len(steps) == 1:
            return ResolvedCheckpoint((steps[0],))  # the best there is
        if not ranked:
            raise CheckpointError(
                f"no checkpoint has a score to be the best by; choose last or a step; {there}"
            )
        return ResolvedCheckpoint((ranked[0],))
    if name.isdecimal() and not rest and int(name) in steps:
        return ResolvedCheckpoint((int(name),))
    raise CheckpointError(
        f"no checkpoint {which!r}; choose best, last, a step, average:N, average:best:N, "
        f"average:STEP+STEP or ema; {there}"
    )


def _several(rest: str, steps: Sequence[int], ranked: Sequence[int], there: str) -> tuple[int, ...]:
    order, _, count = rest.rpartition(":")
    if count.isdecimal() and int(count) and order in ("", "best"):
        some = ranked[: int(count)] if order else steps[-int(count) :]
        if len(some) < int(count):
            kind = "with a score " if order else ""
            raise CheckpointError(
                f"average:{rest} needs {count} checkpoints {kind}but there are {len(some)}: "
                f"raise train.{'keep_best' if order else 'keep_last'} before training; {there}"
            )
        return tuple(sorted(some))
    chosen = rest.split("+")
    missing = [step for step in chosen if not step.isdecimal() or int(step) not in steps]
    if len(chosen) < 2 or missing:
        what = f"has no step {missing[0]}" if missing else "is no average"
        raise CheckpointError(f"average:{rest} {what}: as in average:5 or average:10+20; {there}")
    return tuple(sorted({int(step) for step in chosen}))
