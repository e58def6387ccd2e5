"""Worst and best translations of a run, by chrF."""

from collections.abc import Callable
from typing import NamedTuple

from sacrebleu.metrics import CHRF

from experiments.report.record import Run


class Example(NamedTuple):
    """A sentence of the test split, by its number there from 1 on."""

    line: int
    source: str
    reference: str
    hypothesis: str
    chrf: float
    score: float  # the model's own, by which the search ranked it


def worst_and_best(
    run: Run, most: int = 10, progress: Callable[[int], None] | None = None
) -> tuple[list[Example], list[Example]]:
    """At most `most` of each, the extremes first, none in both; of equals the longest sources."""
    chrf = CHRF()
    found = []
    for line, row in enumerate(run.translations, 1):
        texts = row["source"], row["reference"], row["hypothesis"]
        measured = chrf.sentence_score(texts[2], [texts[1]]).score
        found.append(Example(line, *texts, measured, row["score"]))
        if progress:
            progress(1)
    worst = sorted(found, key=lambda e: (e.chrf, -len(e.source)))[: (len(found) + 1) // 2]
    best = sorted(found, key=lambda e: (-e.chrf, -len(e.source)))
    best = [example for example in best if example not in worst[:most]]
    return worst[:most], best[: min(most, len(found) // 2)]
