"""Translation task: validation loss and BLEU during training, a test by beam search."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import jax

from data.batch import Batch
from data.language import find_language
from data.pairs import SPLITS, Corpus
from data.vocabulary import Vocabulary
from decode.bleu import corpus_scores
from decode.options import InputError, NoHypothesisError
from decode.translate import Translator
from experiments.config import Experiment, name_search_settings
from experiments.console import log, progress_bar
from experiments.preemption import make_stop_check
from experiments.run_context import RunContext
from experiments.task import EvalResult
from experiments.translation_data import (
    TranslationData,
    open_split,
    read_pairs,
    sources_and_references,
)
from experiments.translations import FILE, write_translations
from experiments.translator import build_translator
from experiments.workdir import LoadedModel
from model import ConfigError
from train.loop import Hook, total_metrics, validation_hook
from train.metric_logger import IN_FLIGHT
from train.state import abstract_params
from train.step import make_eval_step


class TranslationTask:
    """The `Task` of sentence pairs, evaluated by BLEU and chrF; methods as in `Task`."""

    outputs = FILE
    valid_metrics: tuple[str, ...] = ("loss", "bleu")
    test_metrics: tuple[str, ...] = ("bleu", "chrf", "signature", "chrf_signature")

    def open_splits(self, experiment: Experiment) -> dict[str, Corpus]:
        """The pairs of each split. Raises DataError."""
        return {split: open_split(experiment, split) for split in SPLITS}

    def read(
        self,
        experiment: Experiment,
        splits: Mapping[str, Corpus],
        vocabulary: Vocabulary,
        on_progress: Callable[[], None],
    ) -> TranslationData:
        """Read pairs as token ids, and schedule their batches. Raises DataError."""
        return read_pairs(experiment, splits, vocabulary, on_progress)

    def warn(self, experiment: Experiment) -> None:
        """Warn if the target language is unknown: BLEU then uses the default tokenizer."""
        warn_unknown_language(experiment.data.target_language)

    def check(self, run: RunContext) -> None:
        """Build the translator of BLEU without weights, and give it the sentences of both splits.

        It raises here what it would raise at the first BLEU, after hours of training.
        """

        def check(params):
            c = run.experiment
            translator = build_translator(c, run.model, params, run.vocabulary, run.mesh)
            for split, count in ("valid", c.train.eval_bleu_sentences), ("test", 0):
                # Line numbers are those of a file only without eval_bleu_sentences.
                sentences = f"{count} sentences of " * bool(count)
                with _search_errors(f"BLEU of {sentences}the {split} split: "):
                    translator.check(sources_and_references(_pairs(run, split), count)[0])
            return translator.weights

        with _search_errors():
            jax.eval_shape(check, abstract_params(run.model, run.mesh))

    def hooks(self, run: RunContext) -> list[Hook]:
        """Validation loss, then BLEU."""
        interval = run.experiment.train.eval_every
        evaluate = make_eval_step(run.model, run.mesh, chunked=run.experiment.train.chunked_loss)
        batches = partial(_valid_batches, run)
        return [
            validation_hook(evaluate, batches, interval, weights=run.weights),
            Hook("bleu", interval, _BLEU(run)),
        ]

    def test(self, run: RunContext, best: LoadedModel, stop: Callable[[int], None]) -> EvalResult:
        """Measure loss, BLEU and chrF of the best checkpoint on the test split."""
        c = run.experiment
        sources, references = sources_and_references(_pairs(run, "test"))
        translator = build_translator(c, best.model, best.params, best.vocabulary, best.mesh)
        with progress_bar("testing", len(sources)) as progress:

            def on_progress(count: float) -> None:
                progress(count)
                run.watchdog.heartbeat()
                stop(0)

            hypotheses = [best for best, *_ in translator.hypotheses(sources, on_progress)]
        outputs = [best.text for best in hypotheses]
        scores = corpus_scores(outputs, references, c.data.target_language)
        evaluate = make_eval_step(best.model, best.mesh, chunked=c.train.chunked_loss)
        batches = run.watchdog.track(run.data.eval_batches("test", best.mesh))
        with progress_bar("test loss", None):
            total = total_metrics(evaluate, best.params, batches)
        scores = {"loss": total.to_dict()["loss"], **scores, "checkpoint": best.step}
        write = partial(write_translations, run.workdir, best.step, sources, references, hypotheses)
        return EvalResult(scores, write)


def warn_unknown_language(language: str) -> None:
    """Warn if the target language is unknown: BLEU then uses the default tokenizer."""
    if find_language(language) is None:
        log(
            f"data.target_language={language} is not a language code: BLEU uses the default "
            "tokenizer 13a, which splits at spaces"
        )


@contextmanager
def _search_errors(context: str = "") -> Iterator[None]:
    """Convert an InputError of the search, which names flags, to one that names settings."""
    try:
        yield
    except InputError as error:
        raise ConfigError(context + name_search_settings(str(error))) from None


def _pairs(run: RunContext, split: str) -> Corpus:
    assert isinstance(run.data, TranslationData)
    return run.data.splits[split]


def _valid_batches(run: RunContext) -> Iterator[Batch]:
    check_stop = make_stop_check(run.stop_requested, IN_FLIGHT)
    with progress_bar("validation loss", None):
        for batch in run.watchdog.track(run.data.eval_batches("valid", run.mesh)):
            check_stop(0)
            yield batch


class _BLEU:
    """Hook: BLEU of the validation split by beam search, compiled once for all calls."""

    def __init__(self, run: RunContext):
        self._run = run
        self._sources, self._references = sources_and_references(
            _pairs(run, "valid"), run.experiment.train.eval_bleu_sentences
        )
        self._translator: Translator | None = None

    def __call__(self, step: int, state, _report: dict) -> dict:
        run, c = self._run, self._run.experiment
        if self._translator is None:
            translator = build_translator(
                c, run.model, run.weights(state), run.vocabulary, run.mesh
            )
        else:
            translator = self._translator.with_params(run.weights(state))
        self._translator = translator.without_weights()  # frees the weights while training
        check_stop = make_stop_check(run.stop_requested)
        with progress_bar("validating", len(self._sources)) as progress:

            def on_progress(count: float) -> None:
                progress(count)
                run.watchdog.heartbeat()
                check_stop(step)

            try:
                outputs = translator.translate(self._sources, on_progress)
            except NoHypothesisError:  # the loss monitor decides whether the run has diverged
                log("warning: no hypothesis has a finite score; BLEU is skipped")
                return {}
        bleu = corpus_scores(outputs, self._references, c.data.target_language)["bleu"]
        return {"bleu": bleu, "eval_bleu_sentences": len(self._sources)}
