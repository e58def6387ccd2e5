"""BLEU and chrF by source length."""

from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics import BLEU

from decode.bleu import score, tokenizer
from experiments.report.record import Run

_WIDTHS = (1, 2, 5, 10, 20, 50, 100)
_MOST = 8  # buckets


class Scores(NamedTuple):
    """Of one run's sentences in one bucket."""

    sentences: int
    bleu: float
    chrf: float


class Bucket(NamedTuple):
    """Source lengths `first` up to `last` (None: and above), with each run's scores, if any."""

    first: int
    last: int | None
    scores: list[Scores | None]

    def __str__(self):
        if self.last is None:
            return f"{self.first} and more"
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def by_length(runs: Sequence[Run]) -> list[Bucket]:
    """The scores of all runs' translations in the same buckets of source length.

    A length is the number of words and punctuation marks that sacreBLEU's tokenizer of the source
    language finds, so that it is the same for all vocabularies. Buckets are as wide as makes at
    most 8 of them; the last holds also the longest hundredth.
    """
    lengths = [_lengths(run) for run in runs]
    if not any(lengths):
        return []
    ends = _ends(sorted(length for each in lengths for length in each))
    buckets = []
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        open_end = last == ends[-1]
        scores = [
            _scores(run, [i for i, n in enumerate(each) if n > first and (n <= last or open_end)])
            for run, each in zip(runs, lengths, strict=True)
        ]
        if any(scores):
            longer = open_end and any(n > last for each in lengths for n in each)
            buckets.append(Bucket(first + 1, None if longer else last, scores))
    return buckets


def _lengths(run: Run) -> list[int]:
    """A blank source counts as one of length 1: its bucket is the first."""
    split = BLEU(tokenize=tokenizer(run.experiment.data.source_language)).tokenizer
    return [max(1, len(split(row["source"]).split())) for row in run.translations]


def _ends(lengths: list[int]) -> list[int]:
    """The last length of each bucket."""
    most = lengths[(len(lengths) - 1) * 99 // 100]
    width = next((w for w in _WIDTHS if -(-most // w) <= _MOST), -(-most // _MOST))
    return [width * (i + 1) for i in range(-(-most // width))]


def _scores(run: Run, rows: list[int]) -> Scores | None:
    if not rows:
        return None
    some = [run.translations[row] for row in rows]
    found = score(
        [row["hypothesis"] for row in some],
        [row["reference"] for row in some],
        run.experiment.data.target_language,
    )
    return Scores(len(rows), found["bleu"], found["chrf"])
