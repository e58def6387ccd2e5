"""JSON output of hypotheses, for the translate command and the server."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from decode.hypotheses import Hypothesis

if TYPE_CHECKING:
    from experiments.workdir import LoadedModel


def hypotheses_to_json(
    hypotheses: Sequence[list[Hypothesis]],
    trained: "LoadedModel",
    *,
    alignment: bool = True,
    attention: bool = False,
    precompiled_shapes: Sequence[tuple[int, int]] = (),
    progress: Callable[[int], None] | None = None,
) -> list[dict]:
    """Convert each sentence's hypotheses: the best one, the source pieces, and all as "n_best".

    A hypothesis is {"text", "score", "tokens": its pieces, "token_scores"}, with minimum Bayes risk
    its "utility", and on request its "alignment" (pairs of positions in source and output) and
    "attention" (one row per token), from the alignment layer. `precompiled_shapes` and
    `progress` as in `decode.teacher_forcing.force_pairs`.
    """
    pieces = trained.vocabulary.target.pieces
    flat = [hypothesis for n_best in hypotheses for hypothesis in n_best]
    alignments: list[dict] = [{}] * len(flat)
    if alignment or attention:
        alignments = _align(flat, trained, attention, precompiled_shapes, progress)
    remaining = iter(alignments)
    results = []
    for n_best in hypotheses:
        n_best_json = [
            {
                "text": hypothesis.text,
                "score": hypothesis.score,
                "tokens": pieces(hypothesis.tokens),
                "token_scores": hypothesis.token_scores,
            }
            | ({} if hypothesis.utility is None else {"utility": hypothesis.utility})
            | next(remaining)
            for hypothesis in n_best
        ]
        source = [i for ids, _ in n_best[0].parts for i in ids]
        fields = {"source": trained.vocabulary.source.pieces(source), "n_best": n_best_json}
        results.append(n_best_json[0] | fields)
    return results


def _align(
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
            rows += [] if weights is None else weights.tolist()  # over its segment of the source
            offsets = [offset + len(ids) for offset, ids in zip(offsets, pair, strict=True)]
        results.append({"alignment": links} | ({"attention": rows} if attention else {}))
    return results
