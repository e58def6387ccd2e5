"""Worst and best translations of a run, by chrF."""

from collections.abc import Callable
from typing import NamedTuple

from sacrebleu.metrics import CHRF

from experiments.report.record import Run


class Example(NamedTuple):
    """A sentence of the test split; `line` counts from 1."""

    line: int
    source: str
    reference: str
    hypothesis: str
    chrf: float
    score: float  # of the model, by which the search ranks


def worst_and_best(
    run: Run, count: int = 10, progress: Callable[[int], None] | None = None
) -> tuple[list[Example], list[Example]]:
    """At most `count` examples each, disjoint, extremes first; among equals, long sources first."""
    chrf = CHRF()
    examples = []
    for line, row in enumerate(run.translations, 1):
        texts = row["source"], row["reference"], row["hypothesis"]
        sentence_chrf = chrf.sentence_score(texts[2], [texts[1]]).score
        examples.append(Example(line, *texts, sentence_chrf, row["score"]))
        if progress:
            progress(1)
    worst = sorted(examples, key=lambda e: (e.chrf, -len(e.source)))[: (len(examples) + 1) // 2]
    best = sorted(examples, key=lambda e: (-e.chrf, -len(e.source)))
    best = [example for example in best if example not in worst[:count]]
    return worst[:count], best[: min(count, len(examples) // 2)]
