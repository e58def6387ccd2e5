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
    """Of each sentence its best hypothesis, the pieces of its source, and all as "n_best".

    A hypothesis is {"text", "score", "tokens": its pieces, "token_scores"}, with minimum Bayes risk
    its "utility", and if wanted its "alignment", pairs of positions in source and output, and
    "attention", a row a token, of the layer that alignments are read off. `precompiled_shapes` and
    `progress` as in `decode.teacher_forcing.force_pairs`.
    """
    pieces = trained.vocabulary.target.pieces
    hypotheses = [hypothesis for each in found for hypothesis in each]
    aligned: list[dict] = [{}] * len(hypotheses)
    if alignment or attention:
        aligned = _aligned(hypotheses, trained, attention, precompiled_shapes, progress)
    more = iter(aligned)
    told = []
    for each in found:
        listed = [
            {
                "text": hypothesis.text,
                "score": hypothesis.score,
                "tokens": pieces(hypothesis.tokens),
                "token_scores": hypothesis.token_scores,
            }
            | ({} if hypothesis.utility is None else {"utility": hypothesis.utility})
            | next(more)
            for hypothesis in each
        ]
        source = [i for ids, _ in each[0].parts for i in ids]
        of = {"source": trained.vocabulary.source.pieces(source), "n_best": listed}
        told.append(listed[0] | of)
    return told


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
    for number, found in teacher_force_pairs(*parts, precompiled_shapes=precompiled_shapes):
        # A float32 cannot hold what is rounded.
        weights = np.asarray(found.attention)
        forced[number] = alignment(weights), weights.astype(float).round(4) if attention else None
    numbers, told = itertools.count(), []
    for hypothesis in hypotheses:
        at = [0, 0]
        links: list[list[int]] = []
        rows: list[list[float]] = []
        for pair in hypothesis.parts:
            aligned, weights = forced[next(numbers)]
            links += [[s + at[0], t + at[1]] for s, t in aligned]
            rows += [] if weights is None else weights.tolist()  # of its own part of the source
            at = [begun + len(ids) for begun, ids in zip(at, pair, strict=True)]
        told.append({"alignment": links} | ({"attention": rows} if attention else {}))
    return told
