"""Input pipeline: tokenize, filter, bucket, shuffle, batch.

The batch of a step is a function of the step number, so a resumed run continues with the same
batches as an uninterrupted run.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np

from data.batch import EOS, PAD, Batch
from data.batch_schedule import BatchSchedule, BatchSpec
from data.buckets import make_buckets
from data.errors import DataError
from data.pairs import Corpus
from data.vocabulary import Vocabulary


class Ragged:
    """Rows of ids of any length in one array: row i is ids[offsets[i] : offsets[i + 1]]."""

    def __init__(self, rows: list[list[int]]):
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.ids = np.array(list(itertools.chain.from_iterable(rows)), np.int32)

    @classmethod
    def of(cls, offsets: np.ndarray, ids: np.ndarray) -> "Ragged":
        """Rows whose ids are concatenated in `ids`, split at `offsets`."""
        rows = cls([])
        rows.offsets, rows.ids = offsets, ids
        return rows

    @classmethod
    def join(cls, blocks: list["Ragged"]) -> "Ragged":
        """Concatenate the rows of all blocks, in order."""
        lengths = np.concatenate([[], *(block.lengths for block in blocks)])
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=int)])
        return cls.of(offsets, np.concatenate([cls([]).ids, *(block.ids for block in blocks)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """The number of ids in each row, [N]."""
        return np.diff(self.offsets)


class TokenPairs(NamedTuple):
    """A tokenized corpus, both sides without EOS."""

    source: Ragged
    target: Ragged

    @property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Lengths [N] of both sides, EOS included."""
        return self.source.lengths + 1, self.target.lengths + 1

    def digest(self) -> str:
        """A hexadecimal digest that identifies the tokenized text."""
        arrays = (array for side in self for array in (side.offsets, side.ids))
        digests = (hashlib.sha256(array.data).digest() for array in arrays)
        return hashlib.sha256(b"".join(digests)).hexdigest()


def tokenize(
    pairs: Corpus,
    vocabulary: Vocabulary,
    progress: Callable[[int], None] | None = None,
    chunk: int = 4096,
) -> TokenPairs:
    """Tokenize all pairs; a blank line has no ids.

    `progress` is called with the number of pairs in each finished chunk. Chunks bound the memory:
    as Python lists a corpus would take ten times as much.
    """
    sides: tuple[list[Ragged], list[Ragged]] = ([], [])
    for start in range(0, len(pairs), chunk):
        block = [pairs[i] for i in range(start, min(start + chunk, len(pairs)))]
        for i, (side, tokenizer) in enumerate(zip(sides, vocabulary, strict=True)):
            lines = [pair[i] if pair[i].strip() else "" for pair in block]
            side.append(Ragged(tokenizer.encode(lines)))
        if progress:
            progress(len(block))
    return TokenPairs(*map(Ragged.join, sides))


@dataclass(frozen=True)
class FilterReport:
    """Numbers of pairs: selected, and dropped for each reason."""

    kept: int
    empty: int
    too_long: int
    ratio: int

    def __str__(self):
        return (
            f"{self.kept} pairs kept; dropped: {self.empty} empty, {self.too_long} too long, "
            f"{self.ratio} over the length ratio"
        )


class FilterMasks(NamedTuple):
    """Masks [N] of the dropped pairs, one per reason; a pair is in at most one mask."""

    empty: np.ndarray
    too_long: np.ndarray
    ratio: np.ndarray


def filter_masks(pairs: TokenPairs, max_length: int, max_ratio: float) -> FilterMasks:
    """Find pairs with an empty side, over `max_length` tokens with EOS, or over the length ratio.

    The ratio counts if it is more than `max_ratio` and the longer side has over 10 tokens.
    """
    source, target = pairs.source.lengths, pairs.target.lengths
    longest, shortest = np.maximum(source, target), np.minimum(source, target)
    empty = shortest == 0
    too_long = ~empty & (longest + 1 > max_length)
    ratio = ~empty & ~too_long & (longest > max_ratio * shortest) & (longest > 10)
    return FilterMasks(empty, too_long, ratio)


def filter_pairs(
    pairs: TokenPairs, max_length: int, max_ratio: float, name: str = "the text"
) -> tuple[np.ndarray, FilterReport]:
    """Indices of the pairs to train on: all pairs that `filter_masks` does not mark.

    Raises DataError, with the corpus's `name` and the cause, if there is no such pair.
    """
    masks = filter_masks(pairs, max_length, max_ratio)
    indices = np.flatnonzero(~np.any(masks, axis=0))
    report = FilterReport(len(indices), *(int(mask.sum()) for mask in masks))
    if not len(indices):
        raise DataError(f"no pair of {name} can be used: {_explain(report, max_length, max_ratio)}")
    return indices, report


def _explain(report: FilterReport, max_length: int, max_ratio: float) -> str:
    """Explain why no pair can be used, and the settings that would change this."""
    reasons = {
        f"{report.empty} with a blank side": report.empty,
        f"{report.too_long} with over {max_length} tokens (raise --config.data.max_length)": (
            report.too_long
        ),
        f"{report.ratio} with lengths that differ by more than the factor {max_ratio:g} "
        "(raise --config.data.max_ratio)": report.ratio,
    }
    return ", ".join(reason for reason, count in reasons.items() if count) or "there are no pairs"


class BatchShards(NamedTuple):
    """A host's shards of each batch: rows are split into `count` equal parts, `parts` are its own.

    A host may hold several parts, and several hosts may hold the same part.
    """

    parts: tuple[int, ...] = (0,)
    count: int = 1  # type: ignore[assignment]  # hides tuple.count


FULL_SHARD = BatchShards()


def collate(
    pairs: TokenPairs,
    spec: BatchSpec,
    multiple_of: int = 1,
    shard: BatchShards = FULL_SHARD,
) -> Batch:
    """Build the batch of a `BatchSpec`: EOS after each side, PAD up to the bucket's shape.

    Rows of PAD round the number of rows up to a multiple of `multiple_of`, which must be divisible
    by the shard's count. Only the shard's rows are built, part after part.
    """
    bucket = spec.bucket
    rows_per_part = bucket.with_rows(multiple_of).rows // shard.count
    local_row = np.full(rows_per_part * shard.count, -1)  # row index in the shard, or -1
    for position, part in enumerate(shard.parts):
        local_row[part * rows_per_part : (part + 1) * rows_per_part] = np.arange(
            position * rows_per_part, (position + 1) * rows_per_part
        )
    rows = local_row[spec.rows]
    indices, rows = spec.pairs[rows >= 0], rows[rows >= 0]
    shape = rows_per_part * len(shard.parts)
    sides = zip(pairs, (bucket.source, bucket.target), strict=True)
    src, tgt = (_side(ids, indices, rows, (shape, length)) for ids, length in sides)
    return Batch(src[0], tgt[0], src[1], tgt[1]) if spec.packed else Batch(src[0], tgt[0])


def _side(ids: Ragged, pairs: np.ndarray, rows: np.ndarray, shape) -> tuple[np.ndarray, ...]:
    """Ids and segment numbers (from 1 in each row) of one side, [rows, length] each.

    In `rows` the pairs of one row are adjacent.
    """
    out, segments = np.full(shape, PAD, np.int32), np.zeros(shape, np.int32)
    row, offset, segment = -1, 0, 0
    for pair, row_index in zip(pairs.tolist(), rows.tolist(), strict=True):
        if row_index != row:
            row, offset, segment = row_index, 0, 0
        sentence = ids[pair]
        end = offset + len(sentence)
        segment += 1
        out[row, offset:end] = sentence
        out[row, end] = EOS
        segments[row, offset : end + 1] = segment
        offset = end + 1
    return out, segments


def train_batches(
    pairs: TokenPairs,
    schedule: BatchSchedule,
    start_step: int = 0,
    shard: BatchShards = FULL_SHARD,
    multiple_of: int = 1,
) -> Iterator[Batch]:
    """Iterate over the batches of steps `start_step`, `start_step` + 1, ...; the shard's rows only.

    Empty rows round a batch up to a multiple of `multiple_of` rows, so that every mesh trains
    on the same pairs in the same steps. Raises ValueError if the shard's count does not divide
    `multiple_of`.

    One thread prefetches a few batches: they are cheap to build, and more threads would only
    contend with each other.
    """
    if multiple_of % shard.count:
        raise ValueError(
            f"multiples of {multiple_of} rows are not {shard.count} parts of the same size"
        )
    steps = grain.MapDataset.source(schedule)[start_step:]
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    batches = steps.map(lambda spec: collate(pairs, spec, multiple_of, shard))
    return iter(batches.to_iter_dataset(options))


def eval_batches(
    pairs: TokenPairs,
    indices: np.ndarray,
    *,
    tokens_per_batch: int,
    multiple_of: int = 1,
    count: int = 4,
    shard: BatchShards = FULL_SHARD,
) -> Iterator[Batch]:
    """Iterate once over batches of all pairs at `indices`, in at most `count` shapes.

    Each batch has the shard's rows only. A pair longer than `tokens_per_batch` is not an error: its
    batch has few rows.
    """
    source, target = (side[indices] for side in pairs.lengths)
    buckets, assignment = make_buckets(
        source,
        target,
        count=count,
        tokens_per_batch=tokens_per_batch,
        multiple_of=multiple_of,
        overflow=True,
    )
    for i, bucket in enumerate(buckets):
        rows = indices[assignment == i]
        for start in range(0, len(rows), bucket.rows):
            subset = rows[start : start + bucket.rows]
            yield collate(pairs, BatchSpec(bucket, subset, np.arange(len(subset))), shard=shard)
