"""Hypotheses as JSON, for the command and the server."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from decode.hypotheses import Hypothesis

if TYPE_CHECKING:
    from experiments.workdir import LoadedModel


def hypotheses_to_json(
    found: Sequence[list[Hypothesis]],
    trained: "LoadedModel",
    *,
    alignment: bool = True,
    attention: bool = False,
    precompiled_shapes: Sequence[tuple[int, int]] = (),
    progress: Callable[[int], None] | None = None,
) -> list[dict]:
    """For each sentence: the best hypothesis, the source pieces, and all hypotheses as "n_best".

    A hypothesis is {"text", "score", "tokens": its pieces, "token_scores"}, with minimum Bayes risk
    its "utility", and on request its "alignment", pairs of positions in source and output, and
    "attention", one row per token, from the alignment layer. `precompiled_shapes` and
    `progress` as in `decode.teacher_forcing.force_pairs`.
    """
    pieces = trained.vocabulary.target.pieces
    hypotheses = [hypothesis for n_best in found for hypothesis in n_best]
    aligned: list[dict] = [{}] * len(hypotheses)
    if alignment or attention:
        aligned = _aligned(hypotheses, trained, attention, precompiled_shapes, progress)
    extra = iter(aligned)
    results = []
    for n_best in found:
        listed = [
            {
                "text": hypothesis.text,
                "score": hypothesis.score,
                "tokens": pieces(hypothesis.tokens),
                "token_scores": hypothesis.token_scores,
            }
            | ({} if hypothesis.utility is None else {"utility": hypothesis.utility})
            | next(extra)
            for hypothesis in n_best
        ]
        source = [i for ids, _ in n_best[0].parts for i in ids]
        fields = {"source": trained.vocabulary.source.pieces(source), "n_best": listed}
        results.append(listed[0] | fields)
    return results


def _aligned(
    hypotheses: Sequence[Hypothesis],
    trained: "LoadedModel",
    attention: bool,
    precompiled_shapes: Sequence[tuple[int, int]],
    progress: Callable[[int], None] | None,
) -> list[dict]:
    from decode.teacher_forcing import alignment, teacher_force_pairs

    pairs = [pair for hypothesis in hypotheses for pair in hypothesis.parts]
    forced: dict = {}
    parts = trained.model, trained.params, pairs, progress
    for number, forcing in teacher_force_pairs(*parts, precompiled_shapes=precompiled_shapes):
        # float32 cannot represent the rounded values.
        weights = np.asarray(forcing.attention)
        forced[number] = alignment(weights), weights.astype(float).round(4) if attention else None
    numbers, results = itertools.count(), []
    for hypothesis in hypotheses:
        offsets = [0, 0]
        links: list[list[int]] = []
        rows: list[list[float]] = []
        for pair in hypothesis.parts:
            aligned, weights = forced[next(numbers)]
            links += [[s + offsets[0], t + offsets[1]] for s, t in aligned]
            rows += [] if weights is None else weights.tolist()  # over its own part of the source
            offsets = [offset + len(ids) for offset, ids in zip(offsets, pair, strict=True)]
        results.append({"alignment": links} | ({"attention": rows} if attention else {}))
    return results
