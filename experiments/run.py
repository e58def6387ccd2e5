"""One experiment: vocabulary, training, validation, test of the best checkpoint.

Of several processes the first writes all but checkpoints, which all write.
"""

import itertools
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from decode.bleu import score
from decode.hypotheses import Hypothesis
from experiments import workdir as folders
from experiments.config import Experiment
from experiments.console import bar, note
from experiments.course import follow, last_state
from experiments.environment import record_start
from experiments.planning import prepare
from experiments.preemption import nothing_to_save, on_interruption, stopper
from experiments.preparation import build_translator, sides, warn_unknown_language
from experiments.report.page import REPORT, write_report
from experiments.report.record import read_run
from experiments.training import RunContext
from experiments.translations import FILE as TRANSLATIONS
from experiments.translations import write_translations
from train.checkpoint import CheckpointError, CheckpointManager
from train.loop import total_metrics
from train.metrics import MetricsWriter, read_metrics
from train.multihost import PreemptedError, broadcast_from_primary, is_primary, run_on_primary
from train.orbax_errors import first_line
from train.step import make_eval_step
from train.watchdog import Watchdog


def train(
    experiment: Experiment,
    workdir: Path,
    allow_batch_change: bool = False,
    given: Collection[str] = (),
    terminated: Callable[[], object] | None = None,
) -> dict:
    """Train (or go on training) in `workdir`; returns what the last line of the command says.

    All settings and all input are read and checked before anything of the run is written, settings
    first. Its folder is taken before that, so that its processes can watch each other while they
    read; where they do not come to write, it is left as it was. `given` as in `prepare`;
    `terminated` ends the process of a command on a SIGTERM before its training
    (experiments/preemption.py).
    """
    begun = time.monotonic()
    c = experiment.train
    try:
        with on_interruption(c.grace_seconds) as interrupted, ExitStack() as stack:
            before_steps = stack.enter_context(ExitStack())
            before_steps.enter_context(nothing_to_save(terminated))
            run_on_primary(lambda: stack.enter_context(folders.held(workdir)))
            watchdog = stack.enter_context(Watchdog(workdir, c.lost_seconds, c.stalled_seconds))

            def moved() -> None:
                watchdog.moved()
                if reason := interrupted(0):
                    raise PreemptedError(reason)

            def asked(step: int) -> str:
                if step:  # from now on there is something to save
                    before_steps.close()
                return interrupted(step)

            t = prepare(experiment, workdir, allow_batch_change, moved, given)
            return _train(t, begun, watchdog, asked)
    except PreemptedError as interruption:  # before its training
        return nothing_done(str(interruption))


def nothing_done(reason: str) -> dict:
    """What `train` returns where it was interrupted before there was anything to save."""
    return {"step": None, "params": None, "trainable": None, "stopped_by": reason}


def _train(
    t: RunContext, begun: float, watchdog: Watchdog, interrupted: Callable[[int], str]
) -> dict:
    c, workdir = t.experiment, t.workdir
    resumed = broadcast_from_primary(folders.saved(workdir))
    if not resumed:
        run_on_primary(lambda: _write_settings(t))
    with CheckpointManager(workdir / "checkpoints", c.train.keep, c.train.keep_best) as checkpoints:
        sizes = t.sizes()
        learned = f"{sizes['params']:,} parameters" + _adapters(t, sizes["trainable"])
        note(f"{learned} on a mesh of {dict(t.mesh.shape)}{_processes()}")
        warn_unknown_language(c.data.target_language)
        state, meta = last_state(t, checkpoints)
        if resumed:  # a start that is rejected until here leaves the run as it was
            run_on_primary(lambda: _write_settings(t))
        summary = follow(t, checkpoints, state, meta, begun, watchdog, interrupted)
        tested_from = time.monotonic()
        try:
            stop = stopper(lambda _: interrupted(summary.step))
            test = partial(_test, t, checkpoints, watchdog, stop)
            tested = _attempt("the test was not run", test, collective=True)
        except PreemptedError as interruption:
            reason = str(interruption)
            return {"step": summary.step, **sizes, "stopped_by": reason}
        if not is_primary():
            return {}
        told = _record(t, checkpoints, tested, summary.step, sizes)
        told |= {"seconds": round(summary.seconds + time.monotonic() - tested_from, 1)}
        late = interrupted(0) == "SIGINT"  # too late to stop anything
        return told | {"stopped_by": "SIGINT"} if late else told


def _write_settings(t: RunContext) -> None:
    """What there is to know of the run; config.json, which makes the folder a run's, comes last."""
    if not folders.saved(t.workdir):
        folders.clear_attempt(t.workdir)
        t.vocabulary.save(t.workdir)
    folders.write_config(t.workdir, t.experiment)
    record_start(t.workdir, t.mesh)


def _adapters(t: RunContext, trained: int) -> str:
    return f" and {trained:,} of adapters, which are trained," * bool(t.experiment.lora.rank)


def _processes() -> str:
    return f" in {jax.process_count()} processes" * (jax.process_count() > 1)


class _Tested(NamedTuple):
    scores: dict  # loss, BLEU, chrF, and of which checkpoint
    translations: list[Hypothesis]


def _attempt(failure: str, action: Callable[[], Any], collective: bool = False) -> Any:
    """What `action` returns, or None after one line that begins with `failure`.

    Training has ended well: no error in what comes after it may make it look otherwise. Only where
    several processes do it together and only one of them fails, the error ends them all.
    """
    try:
        return action()
    except PreemptedError:
        raise
    except Exception as error:
        if collective and jax.process_count() > 1 and not isinstance(error, CheckpointError):
            raise
        note(f"warning: {failure}: {type(error).__name__}: {first_line(error)}")
        return None


def _best(t: RunContext, checkpoints: CheckpointManager) -> folders.LoadedModel:
    """The best checkpoint that is whole. Raises CheckpointError if none is."""
    steps = broadcast_from_primary(checkpoints.best_first())
    for step, following in itertools.pairwise([*steps, None]):
        try:
            return folders.load(t.workdir, str(step), t.mesh)
        except CheckpointError as error:
            if following is None:
                raise
            note(f"warning: {error}; testing step {following} instead")
    raise CheckpointError(f"{checkpoints.folder}: no checkpoints")


def _test(
    t: RunContext, checkpoints: CheckpointManager, watchdog: Watchdog, stop: Callable[[int], None]
) -> _Tested:
    """What the best checkpoint makes of the test split."""
    stop(0)  # also where it was training that was interrupted
    c, best = t.experiment, _best(t, checkpoints)
    sources, references = sides(t.text.splits["test"])
    translator = build_translator(c, best.model, best.params, best.vocabulary, best.mesh)
    with bar("testing", len(sources)) as progress:

        def hear(count: float) -> None:
            progress(count)
            watchdog.moved()
            stop(0)

        found = [best for best, *_ in translator.hypotheses(sources, hear)]
    scores = score([best.text for best in found], references, c.data.target_language)
    evaluate = make_eval_step(best.model, best.mesh, chunked=c.train.chunked_loss)
    batches = watchdog.each(t.text.eval_batches("test", c, best.mesh))
    with bar("test loss", None):
        total = total_metrics(evaluate, best.params, batches)
    told = {"loss": total.to_dict()["loss"], **scores, "checkpoint": best.step}
    return _Tested(told, found)


def _record(
    t: RunContext, checkpoints: CheckpointManager, tested: _Tested | None, step: int, sizes: dict
) -> dict:
    """Writes what was tested, and the report; returns what the command's last line says."""
    workdir, scores = t.workdir, tested.scores if tested else {}
    events = _attempt("metrics.jsonl was not read", lambda: read_metrics(workdir)) or []
    if tested:
        best, test = scores["checkpoint"], sides(t.text.splits["test"])
        _attempt(
            f"{TRANSLATIONS} was not written",
            lambda: write_translations(workdir, best, *test, tested.translations),
        )
        known = [e.get("checkpoint") for e in events if e["split"] == "test" and e["step"] <= step]
        if best not in known:
            _attempt("the test was not recorded", lambda: _record_test(workdir, step, scores))
    else:
        best = checkpoints.best_step()
    _attempt(f"{REPORT} was not written", lambda: _report(workdir))
    valid = {e["step"]: e for e in events if e["split"] == "valid"}.get(best, {})
    names = ("bleu", "chrf", "signature", "chrf_signature")
    return {
        "step": step,
        **sizes,
        "seconds": None,
        "valid": {name: valid.get(name) for name in ("loss", "bleu")},
        "test": {name: scores[name] for name in names} if tested else None,
    }


def _record_test(workdir: Path, step: int, scores: dict) -> None:
    with MetricsWriter(workdir, step) as writer:
        writer.write(max(step, scores["checkpoint"]), "test", scores)


def _report(workdir: Path) -> None:
    run = read_run(workdir)
    for line in run.damaged:
        note(f"warning: {line}")
    write_report([run], workdir / REPORT)
