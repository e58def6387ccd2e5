"""What a training stops for: its validation loss, BLEU of real beam search, a checkpoint."""

from collections.abc import Iterator
from functools import partial

from data.batch import Batch
from data.pipeline import Shard
from decode.bleu import score
from decode.options import NothingFoundError
from experiments import shares
from experiments.console import bar, note
from experiments.preparation import make_translator, sides
from experiments.training import Training
from model.sharding import assemble, batch_shards, on_own_devices, own_parts
from train.account import IN_FLIGHT
from train.checkpoint import Checkpoints
from train.loop import Hook, Interrupted, checkpoint_hook, validation_hook
from train.step import compile_eval_step
from train.together import Agreement
from train.watchdog import Watchdog


class Looks:
    """The hooks of a training; what they compile serves it also after it went back."""

    def __init__(self, t: Training, checkpoints: Checkpoints, interrupted, watchdog: Watchdog):
        self._t, self._checkpoints = t, checkpoints
        self._interrupted, self._watchdog = interrupted, watchdog
        self._sources, self._references = sides(
            t.text.splits["valid"], t.experiment.train.bleu_sentences
        )
        self._evaluate = compile_eval_step(t.model, t.mesh)
        self._translator = None  # made of the first weights there are

    def hooks(self, **meta) -> list[Hook]:
        """Validation loss, then BLEU, then a checkpoint that knows both, saved with `meta`."""
        t, every = self._t, self._t.experiment.train
        meta |= {"vocabulary": t.vocabulary.digest(), "text": t.text.digest}
        return [
            validation_hook(self._evaluate, self._batches, every.eval_every),
            Hook("bleu", every.eval_every, self._bleu),
            checkpoint_hook(self._checkpoints, meta, (every.eval_every, every.checkpoint_every)),
        ]

    def _batches(self) -> Iterator[Batch]:
        t, parts = self._t, batch_shards(self._t.mesh)
        shard = Shard(own_parts(t.mesh), parts)
        agree = Agreement(("SIGTERM",), IN_FLIGHT)
        made = t.text.eval_batches("valid", t.experiment, parts, shard)
        for batch in self._watchdog.each(made):
            if reasons := agree({self._interrupted(0)} - {""}):
                raise Interrupted(reasons.pop())
            yield assemble(batch, t.mesh)

    def _bleu(self, step: int, state, _report: dict) -> dict:
        t, c = self._t, self._t.experiment
        weights, mesh = on_own_devices(state.weights, t.mesh)
        if self._translator is None:
            self._translator = make_translator(c, t.model, weights, t.vocabulary, mesh)
        searching, stop = self._translator.with_params(weights), partial(self._interrupted, step)
        with bar("validating", len(self._sources)) as progress:

            def hear(count: int) -> None:
                progress(count)
                self._watchdog.moved()

            try:
                found = shares.translate(searching, self._sources, hear, stop)
            except NothingFoundError:  # whether the run has diverged is its health's to say
                note("these weights translate nothing")
                return {}
        measured = score(found, self._references, c.data.target_language)["bleu"]
        return {"bleu": measured, "bleu_sentences": len(self._sources)}
