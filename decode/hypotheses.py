"""Hypotheses: text, score and rank of a search's outputs."""

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
    """One translation: text, normalized score, and its tokens' log-probabilities.

    `parts` are pairs of source ids and output ids, each with EOS, one for each segment: a single
    one unless a long sentence was cut. Minimum Bayes risk ranks by `utility`, the mean chrF or BLEU
    against all samples; it is None in other searches.
    """

    text: str
    score: float
    token_scores: tuple[float, ...]
    parts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    utility: float | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """All ids of the output, including each segment's EOS."""
        return tuple(token for _, output in self.parts for token in output)


def rank(
    outputs: Hypotheses,
    segment: Segment,
    spell: Callable[[Sequence[Sequence[int]]], list[str]],
    options: SearchOptions,
    count: int,
    language: str = "",
) -> list[Hypothesis]:
    """Rank a segment's [W,...] arrays: the first `count` hypotheses, best first, samples as drawn.

    Searches return them in that order; minimum Bayes risk sorts by utility. `spell` decodes ids,
    `language` is that of the text. Raises NoHypothesisError if no score is finite.
    """
    tokens, scores, lengths, token_scores = map(np.asarray, outputs)
    valid = [w for w in range(len(scores)) if np.isfinite(scores[w])]
    if not valid:
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
        texts = detokenize(valid)
        worth = expected_utilities([*texts.values()], options.utility, language)
        utilities = dict(zip(valid, worth.tolist(), strict=True))
        first: dict[str, int] = {}  # each text once
        for w in sorted(valid, key=utilities.__getitem__, reverse=True):
            first.setdefault(texts[w], w)
        chosen = [*first.values()][:count]
    else:
        chosen = valid[:count]
        texts = detokenize(chosen)  # only these: decoding all takes longer than ranking
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
    """Concatenate the hypotheses of a sentence's segments, rank by rank; scores are summed."""
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
        for row in zip(*(hypotheses for _, hypotheses in parts), strict=False)
    ]
