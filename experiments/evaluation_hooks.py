"""Evaluation hooks: validation loss, BLEU by beam search, checkpoint."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from data.batch import Batch
from decode.bleu import score
from decode.options import NoHypothesisError
from decode.translate import Translator
from experiments.console import bar, note
from experiments.lora import base_of
from experiments.preemption import stopper
from experiments.preparation import build_translator, sides
from experiments.training import RunContext
from train.checkpoint import CheckpointManager
from train.loop import Hook, checkpoint_hook, validation_hook
from train.metric_logger import IN_FLIGHT
from train.step import make_eval_step
from train.watchdog import Watchdog


class EvaluationHooks:
    """The hooks of a training; what they compile serves it also after it went back."""

    def __init__(
        self, t: RunContext, checkpoints: CheckpointManager, interrupted, watchdog: Watchdog
    ):
        self._t, self._checkpoints = t, checkpoints
        self._interrupted, self._watchdog = interrupted, watchdog
        self._sources, self._references = sides(
            t.text.splits["valid"], t.experiment.train.bleu_sentences
        )
        self._evaluate = make_eval_step(t.model, t.mesh, chunked=t.experiment.train.chunked_loss)
        self._translator: Translator | None = None  # made with the first weights there are

    def hooks(self, **meta) -> list[Hook]:
        """Validation loss, then BLEU, then a checkpoint that knows both, saved with `meta`."""
        t, every = self._t, self._t.experiment.train
        meta |= {"vocabulary": t.vocabulary.digest(), **t.text.digests}
        meta |= {"experiment": json.dumps(asdict(t.experiment))}
        meta |= {"base": base_of(t.workdir)} if t.experiment.lora.rank else {}
        return [
            validation_hook(self._evaluate, self._batches, every.eval_every, weights=t.weights),
            Hook("bleu", every.eval_every, self._bleu),
            checkpoint_hook(self._checkpoints, meta, (every.eval_every, every.checkpoint_every)),
        ]

    def _batches(self) -> Iterator[Batch]:
        stop = stopper(self._interrupted, IN_FLIGHT)
        batches = self._t.text.eval_batches("valid", self._t.experiment, self._t.mesh)
        with bar("validation loss", None):
            for batch in self._watchdog.each(batches):
                stop(0)
                yield batch

    def _bleu(self, step: int, state, _report: dict) -> dict:
        t, c = self._t, self._t.experiment
        if self._translator is None:
            searching = build_translator(c, t.model, t.weights(state), t.vocabulary, t.mesh)
        else:
            searching = self._translator.with_params(t.weights(state))
        self._translator = searching.emptied()  # no weights are kept while there is training
        stop = stopper(self._interrupted)
        with bar("validating", len(self._sources)) as progress:

            def hear(count: float) -> None:
                progress(count)
                self._watchdog.moved()
                stop(step)

            try:
                found = searching.translate(self._sources, hear)
            except NoHypothesisError:  # whether the run has diverged is its health's to say
                note("these weights translate nothing")
                return {}
        measured = score(found, self._references, c.data.target_language)["bleu"]
        return {"bleu": measured, "bleu_sentences": len(self._sources)}
