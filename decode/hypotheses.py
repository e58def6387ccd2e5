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
    one unless a long sentence was split. Minimum Bayes risk ranks by `utility`, the mean chrF or
    BLEU against all samples; it is None in other searches.
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
    decode: Callable[[Sequence[Sequence[int]]], list[str]],
    options: SearchOptions,
    count: int,
    language: str = "",
) -> list[Hypothesis]:
    """Rank a segment's [W,...] arrays: the first `count` hypotheses, best first, samples as drawn.

    Searches return them in that order; minimum Bayes risk sorts by utility. `decode` maps ids to
    text, `language` is the code of the text. Raises NoHypothesisError if no score is finite.
    """
    tokens, scores, lengths, token_scores = map(np.asarray, outputs)
    valid = [w for w in range(len(scores)) if np.isfinite(scores[w])]
    if not valid:
        raise NoHypothesisError(
            f"line {segment.sentence + 1}: no output has a finite score: the constraints exclude "
            "all outputs (--forbid, --no_repeat_ngrams, --min_length), or the model's weights are "
            "corrupt"
        )

    def detokenize(selected: list[int]) -> dict[int, str]:
        texts = decode([tokens[w, : lengths[w]].tolist() for w in selected])
        return dict(zip(selected, texts, strict=True))

    utilities: dict[int, float] = {}
    if options.method == "mbr":
        texts = detokenize(valid)
        expected = expected_utilities([*texts.values()], options.utility, language)
        utilities = dict(zip(valid, expected.tolist(), strict=True))
        unique: dict[str, int] = {}  # the best output of each text
        for w in sorted(valid, key=utilities.__getitem__, reverse=True):
            unique.setdefault(texts[w], w)
        selected = [*unique.values()][:count]
    else:
        selected = valid[:count]
        texts = detokenize(selected)  # only these: decoding all takes longer than ranking
    return [
        Hypothesis(
            texts[w],
            float(scores[w]),
            tuple(token_scores[w, : lengths[w]].tolist()),
            (((*segment.ids, EOS), tuple(tokens[w, : lengths[w]].tolist())),),
            utilities.get(w),
        )
        for w in selected
    ]


def concatenate(segments: list[tuple[str, list[Hypothesis]]]) -> list[Hypothesis]:
    """Concatenate the hypotheses of a sentence's segments, rank by rank; scores are summed."""
    if not segments:
        return [Hypothesis("", 0.0, ())]
    separators = [separator for separator, _ in segments]
    return [
        Hypothesis(
            "".join(separator + h.text for separator, h in zip(separators, ranked, strict=True)),
            sum(h.score for h in ranked),
            tuple(score for h in ranked for score in h.token_scores),
            tuple(pair for h in ranked for pair in h.parts),
            None if ranked[0].utility is None else sum(h.utility for h in ranked) / len(ranked),
        )
        for ranked in zip(*(hypotheses for _, hypotheses in segments), strict=False)
    ]
