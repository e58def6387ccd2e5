"""Checkpoint names: a step, last, best, averages, ema.

| name              | weights                                                                  |
|-------------------|--------------------------------------------------------------------------|
| 1000              | those of that step                                                       |
| last, best        | those of the last step; of the step with the highest BLEU                |
| average:5         | the mean of the last 5 checkpoints (paper 6.1: 5 for base, 20 for big)   |
| average:best:5    | the mean of the 5 best                                                   |
| average:1000+2000 | the mean of these steps                                                  |
| ema               | the moving average of the parameters at the last step                    |
| params:NAME       | those of NAME, but never their moving average                            |

If a run keeps a moving average, evaluation and test use it, also for single checkpoints; means are
taken of the parameters themselves.
"""

from collections.abc import Sequence
from typing import NamedTuple

CheckpointSpec = int | str


class CheckpointError(ValueError):
    """A checkpoint that is missing, does not fit, or could not be written; one line."""


class ResolvedCheckpoint(NamedTuple):
    """The steps to average, and their weights: params, ema, or "" for those the run evaluates."""

    steps: tuple[int, ...]
    part: str = ""


def resolve(
    spec: CheckpointSpec, steps: Sequence[int], ranked: Sequence[int]
) -> ResolvedCheckpoint:
    """Resolve a checkpoint name, given all steps, and `ranked`: those with a score, best first.

    Raises CheckpointError, which lists the steps, if the name matches nothing.
    """
    name, _, argument = str(spec).partition(":")
    listing = f"available: {', '.join(map(str, steps))}"
    if not steps:
        raise CheckpointError("no checkpoints: train first")
    if name == "params" and argument:
        return resolve(argument, steps, ranked)._replace(part="params")
    if name == "average" and argument:
        return ResolvedCheckpoint(_average_steps(argument, steps, ranked, listing), "params")
    if spec == "ema":
        return ResolvedCheckpoint((steps[-1],), "ema")
    if spec == "last":
        return ResolvedCheckpoint((steps[-1],))
    if spec == "best":
        if not ranked and len(steps) == 1:
            return ResolvedCheckpoint((steps[0],))  # the only one is the best
        if not ranked:
            raise CheckpointError(
                f"no checkpoint has a score, so none is the best; choose last or a step; {listing}"
            )
        return ResolvedCheckpoint((ranked[0],))
    if name.isdecimal() and not argument and int(name) in steps:
        return ResolvedCheckpoint((int(name),))
    raise CheckpointError(
        f"no checkpoint {spec!r}; choose best, last, a step, average:N, average:best:N, "
        f"average:STEP+STEP or ema; {listing}"
    )


def _average_steps(
    argument: str, steps: Sequence[int], ranked: Sequence[int], listing: str
) -> tuple[int, ...]:
    order, _, count = argument.rpartition(":")
    if count.isdecimal() and int(count) and order in ("", "best"):
        subset = ranked[: int(count)] if order else steps[-int(count) :]
        if len(subset) < int(count):
            condition = "with a score " if order else ""
            raise CheckpointError(
                f"average:{argument} needs {count} checkpoints {condition}but only {len(subset)} "
                f"exist: raise train.{'keep_best' if order else 'keep_last'} before training; "
                f"{listing}"
            )
        return tuple(sorted(subset))
    names = argument.split("+")
    missing = [step for step in names if not step.isdecimal() or int(step) not in steps]
    if len(names) < 2 or missing:
        problem = f"has no step {missing[0]}" if missing else "is not an average"
        raise CheckpointError(
            f"average:{argument} {problem}: as in average:5 or average:10+20; {listing}"
        )
    return tuple(sorted({int(step) for step in names}))
