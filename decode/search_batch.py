"""Search batch: segments and their constraints as padded arrays."""

from collections.abc import Sequence
from typing import Generic, NamedTuple

import numpy as np

from data.batch import EOS, Numbers, pad_rows
from decode.inputs import Segment
from decode.prefix_constraint import (
    Completions,
    CompletionSizes,
    completion_sizes,
    pack_completions,
)
from decode.shortlist import Shortlist


class SearchBatch(NamedTuple, Generic[Numbers]):
    """Segments as the arrays of a search of B rows; rows after the last segment stop at once."""

    src: Numbers  # [B,S] int32, with EOS
    limits: Numbers  # [B] int32
    prefix: Numbers  # [B,P] int32
    phrases: Numbers  # [B,N,Q] int32
    seeds: Numbers  # [B] uint32
    sentence_ids: Numbers  # [B,2] int32: sentence and segment; -1 in padding rows
    allowed: Numbers | None = None  # [B,V/32] uint32, bits of a shortlist; None: all words
    completions: Completions[Numbers] | None = None  # of prefixes that end inside a word, if any


class PaddedSizes(NamedTuple):
    """Padded sizes for all segments of a call, powers of two: few shapes, few compilations."""

    prefix: int
    phrases: int
    phrase: int
    completion: CompletionSizes = CompletionSizes()  # no prefix ends inside a word


def padded_sizes(segments: Sequence[Segment]) -> PaddedSizes:
    """The sizes that hold the longest prefix, all phrases and the longest phrase."""

    def padded(sizes) -> int:
        size = max(sizes, default=0)
        return 1 << (size - 1).bit_length() if size else 0

    return PaddedSizes(
        padded(len(segment.prefix) for segment in segments),
        padded(len(segment.phrases) for segment in segments),
        padded(len(phrase) for segment in segments for phrase in segment.phrases),
        completion_sizes([segment.completion for segment in segments]),
    )


def make_search_batch(
    segments: Sequence[Segment],
    rows: int,
    length: int,
    padded_sizes: PaddedSizes,
    vocab: int,
    shortlist: Shortlist | None = None,
) -> SearchBatch[np.ndarray]:
    """Pad up to `rows` segments of less than `length` ids, for outputs of `vocab` ids."""

    def column(values, fill, dtype=np.int32) -> np.ndarray:
        return np.array([*values, *[fill] * (rows - len(segments))], dtype)

    phrase_rows = [
        [*segment.phrases, *[[]] * (padded_sizes.phrases - len(segment.phrases))]
        for segment in segments
    ]
    phrases = pad_rows(
        [phrase for row in phrase_rows for phrase in row],
        rows * padded_sizes.phrases,
        padded_sizes.phrase,
    )
    allowed: np.ndarray | None = None
    masks: list[np.ndarray | None] = [None] * len(segments)
    if shortlist is not None:
        masks = [shortlist.allowed([*s.ids, EOS], _requested(s)) for s in segments]
        allowed = column(masks, shortlist.allowed([]), np.uint32)
    completions = None
    if padded_sizes.completion.states:
        completions = pack_completions(
            [segment.completion for segment in segments],
            [segment.num_unmet for segment in segments],
            masks,
            rows,
            vocab,
            padded_sizes.completion,
        )
    return SearchBatch(
        pad_rows([[*segment.ids, EOS] for segment in segments], rows, length),
        column([segment.limit for segment in segments], 1),
        pad_rows([segment.prefix for segment in segments], rows, padded_sizes.prefix),
        phrases.reshape(rows, padded_sizes.phrases, padded_sizes.phrase),
        column([segment.seed for segment in segments], 0, np.uint32),
        column([(segment.sentence, segment.index) for segment in segments], (-1, -1)),
        allowed,
        completions,
    )


def _requested(segment: Segment) -> list[int]:
    """The ids that the output may contain for any source: prefix, spelling, phrases."""
    spelling = segment.completion.spelling if segment.completion else ()
    return [*segment.prefix, *spelling, *sum(segment.phrases, [])]
