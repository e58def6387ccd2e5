"""Hypotheses: text, score and rank of what a search found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data.batch import EOS
from decode.inputs import Segment
from decode.loop import Hypotheses
from decode.mbr import expected_utilities
from decode.options import NoHypothesisError, SearchOptions


@dataclass(frozen=True)
class Hypothesis:
    """One translation: text, normalised score, and its tokens' log-probabilities.

    `parts` are the source's ids and the output's, each with EOS, of every piece that was searched
    for alone: one, but for a long sentence that was cut. `utility` is what minimum Bayes risk ranks
    by, the mean of chrF or BLEU with all samples, and none in other searches.
    """

    text: str
    score: float
    token_scores: tuple[float, ...]
    parts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    utility: float | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The whole output's ids, each part's EOS among them."""
        return tuple(token for _, output in self.parts for token in output)


def rank(
    found: Hypotheses,
    segment: Segment,
    spell: Callable[[Sequence[Sequence[int]]], list[str]],
    options: SearchOptions,
    count: int,
    language: str = "",
) -> list[Hypothesis]:
    """One piece's [W,...] arrays -> the first `count` hypotheses: best first, samples as drawn.

    All searches have them in that order; minimum Bayes risk has its own. `spell` makes text of ids,
    `language` is that of the text. Raises NothingFoundError where no score is finite.
    """
    tokens, scores, lengths, token_scores = map(np.asarray, found)
    there = [w for w in range(len(scores)) if np.isfinite(scores[w])]
    if not there:
        raise NoHypothesisError(
            f"line {segment.sentence + 1}: no output has a finite score: either what is asked for "
            "leaves none (--forbid, --no_repeat_ngrams, --min_length), or the model's weights are "
            "not sound"
        )

    def detokenize(chosen: list[int]) -> dict[int, str]:
        texts = spell([tokens[w, : lengths[w]].tolist() for w in chosen])
        return dict(zip(chosen, texts, strict=True))

    utilities: dict[int, float] = {}
    if options.method == "mbr":
        texts = detokenize(there)
        worth = expected_utilities([*texts.values()], options.utility, language)
        utilities = dict(zip(there, worth.tolist(), strict=True))
        first: dict[str, int] = {}  # each text once
        for w in sorted(there, key=utilities.__getitem__, reverse=True):
            first.setdefault(texts[w], w)
        chosen = [*first.values()][:count]
    else:
        chosen = there[:count]
        texts = detokenize(chosen)  # not of all: that takes longer than to rank them
    return [
        Hypothesis(
            texts[w],
            float(scores[w]),
            tuple(token_scores[w, : lengths[w]].tolist()),
            (((*segment.ids, EOS), tuple(tokens[w, : lengths[w]].tolist())),),
            utilities.get(w),
        )
        for w in chosen
    ]


def concatenate(parts: list[tuple[str, list[Hypothesis]]]) -> list[Hypothesis]:
    """Hypotheses of a sentence's pieces, rank by row; their scores add up."""
    if not parts:
        return [Hypothesis("", 0.0, ())]
    separators = [separator for separator, _ in parts]
    return [
        Hypothesis(
            "".join(separator + part.text for separator, part in zip(separators, row, strict=True)),
            sum(part.score for part in row),
            tuple(score for part in row for score in part.token_scores),
            tuple(pair for part in row for pair in part.parts),
            None if row[0].utility is None else sum(part.utility for part in row) / len(row),
        )
        for row in zip(*(found for _, found in parts), strict=False)
    ]
