"""After training: test the best checkpoint, store its outputs, write the report.

Training has succeeded by then, so a failure here is a warning and never an error.
"""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from experiments import workdir as folders
from experiments.console import log
from experiments.preemption import make_stop_check
from experiments.report.page import REPORT, write_report
from experiments.report.record import read_run
from experiments.run_context import RunContext
from experiments.task import EvalResult
from train.checkpoint import CheckpointError, CheckpointManager
from train.metrics import MetricsWriter, read_metrics
from train.multihost import PreemptedError, broadcast_from_primary
from train.orbax_errors import first_line


def evaluate_best(run: RunContext, checkpoints: CheckpointManager, step: int) -> EvalResult | None:
    """Run the task's test of the best checkpoint; None, after a warning, if it fails.

    All processes call it together, at the last `step`. Raises PreemptedError.
    """
    check_stop = make_stop_check(lambda _: run.stop_requested(step))

    def test() -> EvalResult:
        check_stop(0)  # raises if training itself was preempted
        return run.task.test(run, load_best(run, checkpoints), check_stop)

    return attempt("the test was not run", test, collective=True)


def load_best(run: RunContext, checkpoints: CheckpointManager) -> folders.LoadedModel:
    """Load the model of the best intact checkpoint. Raises CheckpointError if there is none."""
    steps = broadcast_from_primary(checkpoints.best_first())
    for step, next_step in itertools.pairwise([*steps, None]):
        try:
            return folders.load(run.workdir, str(step), run.mesh)
        except CheckpointError as error:
            if next_step is None:
                raise
            log(f"warning: {error}; testing step {next_step} instead")
    raise CheckpointError(f"{checkpoints.folder}: no checkpoints")


def write_results(
    run: RunContext,
    checkpoints: CheckpointManager,
    tested: EvalResult | None,
    step: int,
    sizes: dict,
) -> dict:
    """Write outputs, test scores and report; returns the summary that the command prints last."""
    workdir, scores = run.workdir, tested.scores if tested else {}
    events = attempt("metrics.jsonl was not read", lambda: read_metrics(workdir)) or []
    if tested:
        best = scores["checkpoint"]
        attempt(f"{run.task.outputs} was not written", tested.write_outputs)
        tests = [e for e in events if e["event"] == "test" and e["step"] <= step]
        if best not in [event.get("checkpoint") for event in tests]:
            attempt("the test was not recorded", partial(record_test, run, step, scores))
    else:
        best = checkpoints.best_step()
    attempt(f"{REPORT} was not written", partial(_report, workdir))
    valid = {e["step"]: e for e in events if e["event"] == "valid"}.get(best, {})
    return {
        "step": step,
        **sizes,
        "elapsed_seconds": None,
        "valid": {name: valid.get(name) for name in run.task.valid_metrics},
        "test": {name: scores[name] for name in run.task.test_metrics} if tested else None,
    }


def attempt(failure: str, action: Callable[[], Any], collective: bool = False) -> Any:
    """Call `action`; on an exception log a one-line warning that begins with `failure`.

    Returns the result, or None after an exception. A `collective` action of several processes
    re-raises instead, because the error of one process must end all of them.
    """
    try:
        return action()
    except PreemptedError:
        raise
    except Exception as error:
        if collective and jax.process_count() > 1 and not isinstance(error, CheckpointError):
            raise
        log(f"warning: {failure}: {type(error).__name__}: {first_line(error)}")
        return None


def record_test(run: RunContext, step: int, scores: dict) -> None:
    """Write the test's scores to metrics.jsonl and TensorBoard."""
    with MetricsWriter(run.workdir, step, run.warn) as writer:
        writer.write(max(step, scores["checkpoint"]), "test", scores)


def _report(workdir: Path) -> None:
    recorded = read_run(workdir)
    for line in recorded.corrupt:
        log(f"warning: {line}")
    write_report([recorded], workdir / REPORT)
