"""One experiment, whole: vocabulary, training, validation, and the test of the best checkpoint.

Of several processes the first writes all but checkpoints, which all write.
"""

import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax

from data.corpus import DataError
from decode.bleu import score
from decode.ranking import Hypothesis
from experiments import workdir as folders
from experiments.config import Experiment
from experiments.console import bar, note
from experiments.course import follow
from experiments.environment import record_start
from experiments.interruption import on_sigterm, sigterm_ends, stopper
from experiments.planning import prepare
from experiments.preparation import make_translator, sides
from experiments.reporting.page import REPORT, write_report
from experiments.reporting.record import read_run
from experiments.training import Training
from experiments.translations import write_translations
from train.checkpoint import Checkpoints
from train.loop import total_metrics
from train.metrics import MetricsWriter, read_metrics
from train.step import compile_eval_step
from train.together import Interrupted, first_alone, firsts, is_first
from train.watchdog import Watchdog


def train(
    experiment: Experiment,
    workdir: Path,
    allow_batch_change: bool = False,
    given: Collection[str] = (),
) -> dict:
    """Train (or go on training) in `workdir`; returns what the last line of the command says.

    All settings and all input are read and checked before anything of the run is written, settings
    first. Its folder is taken before that, so that its processes can watch each other while they
    read; where they do not come to write, it is left as it was. `given` as in `prepare`.
    """
    begun = time.monotonic()
    c = experiment.train
    try:
        with sigterm_ends(), ExitStack() as stack:
            first_alone(lambda: stack.enter_context(folders.held(workdir)))
            watchdog = stack.enter_context(Watchdog(workdir, c.lost_seconds, c.stalled_seconds))
            t = prepare(experiment, workdir, allow_batch_change, watchdog.moved, given)
            return _train(t, begun, watchdog)
    except Interrupted as interruption:  # outside of its training: there was nothing to save
        return {"step": None, "params": None, "trainable": None, "stopped_by": str(interruption)}


def _train(t: Training, begun: float, watchdog: Watchdog) -> dict:
    c, workdir = t.experiment, t.workdir
    first_alone(lambda: _write_settings(t))
    with (
        Checkpoints(workdir / "checkpoints", c.train.keep, c.train.keep_best) as checkpoints,
        on_sigterm(c.train.grace_seconds) as interrupted,
    ):
        sizes = t.sizes()
        told = f"{sizes['params']:,} parameters" + _adapters(t, sizes["trainable"])
        note(f"{told} on a mesh of {dict(t.mesh.shape)}{_processes()}")
        summary = follow(t, checkpoints, begun, watchdog, interrupted)
        tested_from = time.monotonic()
        try:
            tested = _test(t, checkpoints, watchdog, stopper(interrupted))
        except Interrupted as interruption:
            reason = str(interruption)
            return {"step": summary.step, **sizes, "stopped_by": reason}
        if not is_first():
            return {}
        step = tested.scores["checkpoint"]
        write_translations(workdir, step, *sides(t.text.splits["test"]), tested.translations)
        with MetricsWriter(workdir, summary.step) as writer:
            told = _summary(workdir, writer, tested.scores, summary.step, sizes)
        _report(workdir)
        return told | {"seconds": round(summary.seconds + time.monotonic() - tested_from, 1)}


def _write_settings(t: Training) -> None:
    """What there is to know of the run; config.json, which makes the folder a run's, comes last."""
    if not folders.saved(t.workdir):
        folders.clear_attempt(t.workdir)
        t.vocabulary.save(t.workdir)
    folders.write_config(t.workdir, t.experiment)
    record_start(t.workdir, t.mesh)


def _adapters(t: Training, trained: int) -> str:
    return f" and {trained:,} of adapters, which are trained," * bool(t.experiment.lora.rank)


def _processes() -> str:
    return f" in {jax.process_count()} processes" * (jax.process_count() > 1)


class _Tested(NamedTuple):
    scores: dict  # loss, BLEU, chrF, and of which checkpoint
    translations: list[Hypothesis]


def _test(
    t: Training, checkpoints: Checkpoints, watchdog: Watchdog, stop: Callable[[int], None]
) -> _Tested:
    """What the best checkpoint makes of the test split."""
    stop(0)  # also where it was training that was interrupted
    c, step = t.experiment, firsts(checkpoints.best_step())
    best = folders.load(t.workdir, "last" if step is None else str(step), t.mesh)
    sources, references = sides(t.text.splits["test"])
    translator = make_translator(c, best.model, best.params, best.vocabulary, best.mesh)
    with bar("testing", len(sources)) as progress:

        def hear(count: int) -> None:
            progress(count)
            watchdog.moved()
            stop(0)

        found = [best for best, *_ in translator.hypotheses(sources, hear)]
    scores = score([best.text for best in found], references, c.data.target_language)
    evaluate = compile_eval_step(best.model, best.mesh, chunked=c.train.chunked_loss)
    batches = watchdog.each(t.text.eval_batches("test", c, best.mesh))
    with bar("test loss", None):
        total = total_metrics(evaluate, best.params, batches)
    told = {"loss": total.to_dict()["loss"], **scores, "checkpoint": best.step}
    return _Tested(told, found)


def _report(workdir: Path) -> None:
    """The run's page; that it cannot be written takes nothing from the run."""
    try:
        write_report([read_run(workdir)], workdir / REPORT)
    except (OSError, DataError) as error:
        note(f"warning: there is no {REPORT}: {error}")


def _summary(workdir: Path, writer: MetricsWriter, tested: dict, step: int, sizes: dict) -> dict:
    """What the command's last line says; the test becomes an event, once."""
    best = tested["checkpoint"]
    events = read_metrics(workdir)
    valid = {e["step"]: e for e in events if e["split"] == "valid"}.get(best, {})
    if not any(e["split"] == "test" and e["checkpoint"] == best for e in events):
        writer.write(max(step, best), "test", tested)
    names = ("bleu", "chrf", "signature", "chrf_signature")
    return {
        "step": step,
        **sizes,
        "seconds": None,
        "valid": {name: valid.get(name) for name in ("loss", "bleu")},
        "test": {name: tested[name] for name in names},
    }
