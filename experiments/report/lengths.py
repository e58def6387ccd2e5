"""BLEU and chrF by source length."""

from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics import BLEU

from decode.bleu import corpus_scores, sacrebleu_tokenizer
from experiments.report.record import Run

_WIDTHS = (1, 2, 5, 10, 20, 50, 100)
_MAX_BUCKETS = 8


class Scores(NamedTuple):
    """Scores of one run's sentences in one bucket."""

    sentences: int
    bleu: float
    chrf: float


class LengthRange(NamedTuple):
    """Source lengths from `first` to `last` (None: no limit), with each run's scores, if any."""

    first: int
    last: int | None
    scores: list[Scores | None]

    def __str__(self):
        if self.last is None:
            return f"{self.first} and more"
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def score_by_length(runs: Sequence[Run]) -> list[LengthRange]:
    """Score the translations of all runs in the same buckets of source length.

    A length is the number of words and punctuation marks of sacreBLEU's tokenizer for the source
    language, which does not depend on the vocabulary. The bucket width gives at most 8 buckets; the
    last one includes the longest 1%.
    """
    lengths = [_lengths(run) for run in runs]
    if not any(lengths):
        return []
    ends = _bucket_ends(sorted(length for run_lengths in lengths for length in run_lengths))
    buckets = []
    for low, high in zip([0, *ends[:-1]], ends, strict=True):
        is_last = high == ends[-1]
        scores = [
            _scores(
                run, [i for i, n in enumerate(run_lengths) if n > low and (n <= high or is_last)]
            )
            for run, run_lengths in zip(runs, lengths, strict=True)
        ]
        if any(scores):
            longer_exist = is_last and any(n > high for run_lengths in lengths for n in run_lengths)
            buckets.append(LengthRange(low + 1, None if longer_exist else high, scores))
    return buckets


def _lengths(run: Run) -> list[int]:
    """Source lengths; a blank source counts as length 1."""
    split = BLEU(tokenize=sacrebleu_tokenizer(run.experiment.data.source_language)).tokenizer
    return [max(1, len(split(row["source"]).split())) for row in run.translations]


def _bucket_ends(lengths: list[int]) -> list[int]:
    """The last length of each bucket."""
    max_length = lengths[(len(lengths) - 1) * 99 // 100]
    width = next(
        (w for w in _WIDTHS if -(-max_length // w) <= _MAX_BUCKETS), -(-max_length // _MAX_BUCKETS)
    )
    return [width * (i + 1) for i in range(-(-max_length // width))]


def _scores(run: Run, rows: list[int]) -> Scores | None:
    if not rows:
        return None
    selected = [run.translations[row] for row in rows]
    bleu_and_chrf = corpus_scores(
        [row["hypothesis"] for row in selected],
        [row["reference"] for row in selected],
        run.experiment.data.target_language,
    )
    return Scores(len(rows), bleu_and_chrf["bleu"], bleu_and_chrf["chrf"])
