"""An example task: language modeling of target sentences, evaluated by loss."""

import json
from dataclasses import replace
from functools import partial

from data.atomic_write import write_atomic
from data.batch import BOS
from data.pipeline import Ragged, TokenPairs
from experiments.task import EvalResult
from experiments.translation_data import read_pairs
from experiments.translation_task import TranslationTask
from train.loop import total_metrics, validation_hook
from train.step import make_eval_step


class LanguageModeling:
    outputs = "perplexity.json"
    valid_metrics = test_metrics = ("loss", "perplexity")
    open_splits = TranslationTask.open_splits

    def read(self, experiment, splits, vocabulary, on_progress):
        data = read_pairs(experiment, splits, vocabulary, on_progress)
        targets = lambda pairs: TokenPairs(Ragged([[BOS]] * len(pairs.target)), pairs.target)  # noqa: E731
        return replace(data, pairs={split: targets(pairs) for split, pairs in data.pairs.items()})

    def warn(self, experiment):
        pass

    def check(self, run):
        pass

    def hooks(self, run):
        evaluate = make_eval_step(run.model, run.mesh)
        batches = partial(run.data.eval_batches, "valid", run.mesh)
        every = run.experiment.train.eval_every
        return [validation_hook(evaluate, batches, every, weights=run.weights)]

    def test(self, run, best, stop):
        evaluate = make_eval_step(best.model, best.mesh)
        total = total_metrics(evaluate, best.params, run.data.eval_batches("test", best.mesh))
        scores = total.to_dict()
        content = json.dumps(scores).encode()
        write = partial(write_atomic, run.workdir / self.outputs, content)
        return EvalResult({**scores, "checkpoint": best.step}, write)
