"""Input pipeline: tokenize, filter, bucket, shuffle, batch.

The batch of any step is a function of the step's number, so a run that resumes finds its place
at once and sees what it would have seen.
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
        """The rows whose ids lie one behind the other in `ids`."""
        rows = cls([])
        rows.offsets, rows.ids = offsets, ids
        return rows

    @classmethod
    def join(cls, parts: list["Ragged"]) -> "Ragged":
        """The rows of all parts, in order."""
        lengths = np.concatenate([[], *(part.lengths for part in parts)])
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=int)])
        return cls.of(offsets, np.concatenate([cls([]).ids, *(part.ids for part in parts)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """The number of ids in each row, [N]."""
        return np.diff(self.offsets)


class TokenPairs(NamedTuple):
    """A tokenised source, both sides without EOS."""

    source: Ragged
    target: Ragged

    @property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Both sides' lengths [N], EOS included."""
        return self.source.lengths + 1, self.target.lengths + 1

    def digest(self) -> str:
        """A hexadecimal digest by which two tokenised texts can be told apart."""
        parts = (part.data for side in self for part in (side.offsets, side.ids))
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def tokenize(
    pairs: Corpus,
    vocabulary: Vocabulary,
    progress: Callable[[int], None] | None = None,
    chunk: int = 4096,
) -> TokenPairs:
    """All pairs as ids, a blank line as none; `progress` hears how many more were done.

    A chunk at a time: as Python lists a corpus would take ten times the memory.
    """
    sides: tuple[list[Ragged], list[Ragged]] = ([], [])
    for start in range(0, len(pairs), chunk):
        some = [pairs[i] for i in range(start, min(start + chunk, len(pairs)))]
        for i, (side, tokenizer) in enumerate(zip(sides, vocabulary, strict=True)):
            lines = [pair[i] if pair[i].strip() else "" for pair in some]
            side.append(Ragged(tokenizer.encode(lines)))
        if progress:
            progress(len(some))
    return TokenPairs(*map(Ragged.join, sides))


@dataclass(frozen=True)
class FilterReport:
    """How many pairs were kept and why the others were not."""

    kept: int
    empty: int
    too_long: int
    ratio: int

    def __str__(self):
        dropped = f"{self.empty} empty, {self.too_long} too long, {self.ratio} of unlike lengths"
        return f"{self.kept} pairs kept; dropped: {dropped}"


class FilterMasks(NamedTuple):
    """Which pairs are not trained on, and why: a mask [N] for each reason, at most one a pair's."""

    empty: np.ndarray
    too_long: np.ndarray
    ratio: np.ndarray


def filter_masks(pairs: TokenPairs, max_length: int, max_ratio: float) -> FilterMasks:
    """Pairs with an empty side, of more than `max_length` tokens with EOS, or of unlike lengths.

    These are lengths that differ by more than the factor `max_ratio`, where the longer has over 10
    tokens.
    """
    source, target = pairs.source.lengths, pairs.target.lengths
    longest, shortest = np.maximum(source, target), np.minimum(source, target)
    empty = shortest == 0
    too_long = ~empty & (longest + 1 > max_length)
    ratio = ~empty & ~too_long & (longest > max_ratio * shortest) & (longest > 10)
    return FilterMasks(empty, too_long, ratio)


def filter_pairs(
    pairs: TokenPairs, max_length: int, max_ratio: float, where: str = "the text"
) -> tuple[np.ndarray, FilterReport]:
    """Numbers of the pairs to train on, without those that `filter_masks` finds.

    Raises DataError, which names `where` they are from and the cause, if none is left.
    """
    faults = filter_masks(pairs, max_length, max_ratio)
    kept = np.flatnonzero(~np.any(faults, axis=0))
    report = FilterReport(len(kept), *(int(fault.sum()) for fault in faults))
    if not len(kept):
        raise DataError(
            f"no pair of {where} can be used: {_explain(report, max_length, max_ratio)}"
        )
    return kept, report


def _explain(report: FilterReport, max_length: int, max_ratio: float) -> str:
    """Why no pair was kept, and which setting would keep some."""
    reasons = {
        f"{report.empty} with a blank side": report.empty,
        f"{report.too_long} with over {max_length} tokens (raise --config.data.max_length)": (
            report.too_long
        ),
        f"{report.ratio} with lengths that differ by more than the factor {max_ratio:g} "
        "(raise --config.data.max_ratio)": report.ratio,
    }
    return ", ".join(reason for reason, count in reasons.items() if count) or "there are no pairs"


class Shard(NamedTuple):
    """What a host holds of every batch: of so many equal parts of its rows, those of these numbers.

    A host may hold several parts, and a part may be on several hosts.
    """

    parts: tuple[int, ...] = (0,)
    count: int = 1  # type: ignore[assignment]  # no tuple's method


FULL_SHARD = Shard()


def collate(
    pairs: TokenPairs,
    planned: BatchSpec,
    multiple_of: int = 1,
    shard: Shard = FULL_SHARD,
) -> Batch:
    """The batch of these pairs, EOS after each side, PAD up to the bucket's shape.

    Rows of PAD make their number a multiple of `multiple_of`, which the shard's count divides. Only
    the shard's rows are made, part after part.
    """
    bucket = planned.bucket
    each = bucket.with_rows(multiple_of).rows // shard.count
    own = np.full(each * shard.count, -1)  # where a row lies in this shard
    for at, part in enumerate(shard.parts):
        own[part * each : (part + 1) * each] = np.arange(at * each, (at + 1) * each)
    rows = own[planned.rows]
    here, rows = planned.pairs[rows >= 0], rows[rows >= 0]
    shape = each * len(shard.parts)
    sides = zip(pairs, (bucket.source, bucket.target), strict=True)
    src, tgt = (_side(ids, here, rows, (shape, length)) for ids, length in sides)
    return Batch(src[0], tgt[0], src[1], tgt[1]) if planned.packed else Batch(src[0], tgt[0])


def _side(ids: Ragged, pairs: np.ndarray, rows: np.ndarray, shape) -> tuple[np.ndarray, ...]:
    """One side's ids and the number of each one's pair in its row, from 1, [rows, length] each.

    `rows` has pairs of one row together.
    """
    out, segments = np.full(shape, PAD, np.int32), np.zeros(shape, np.int32)
    row, at, segment = -1, 0, 0
    for pair, its_row in zip(pairs.tolist(), rows.tolist(), strict=True):
        if its_row != row:
            row, at, segment = its_row, 0, 0
        sentence = ids[pair]
        end = at + len(sentence)
        segment += 1
        out[row, at:end] = sentence
        out[row, end] = EOS
        segments[row, at : end + 1] = segment
        at = end + 1
    return out, segments


def train_batches(
    pairs: TokenPairs,
    plan: BatchSchedule,
    start_step: int = 0,
    shard: Shard = FULL_SHARD,
    multiple_of: int = 1,
) -> Iterator[Batch]:
    """The batches of steps `start_step`, `start_step` + 1, ...; a host's share of their rows.

    A mesh that wants a multiple of some number of rows gets empty ones, and so learns from the same
    pairs in the same steps as any other. Raises ValueError where the parts of a batch do not divide
    `multiple_of`.

    One thread prepares a few batches ahead: they are light, and more threads only wait for each
    other.
    """
    if multiple_of % shard.count:
        raise ValueError(
            f"multiples of {multiple_of} rows are not {shard.count} parts of the same size"
        )
    steps = grain.MapDataset.source(plan)[start_step:]
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    make = steps.map(lambda planned: collate(pairs, planned, multiple_of, shard))
    return iter(make.to_iter_dataset(options))


def eval_batches(
    pairs: TokenPairs,
    kept: np.ndarray,
    *,
    tokens_per_batch: int,
    multiple_of: int = 1,
    count: int = 4,
    shard: Shard = FULL_SHARD,
) -> Iterator[Batch]:
    """Batches of the pairs of these numbers once, none left out, in at most `count` shapes.

    Of each the shard's rows. A pair longer than `tokens_per_batch` has few rows beside it, rather
    than being refused.
    """
    source, target = (side[kept] for side in pairs.lengths)
    buckets, which = make_buckets(
        source,
        target,
        count=count,
        tokens_per_batch=tokens_per_batch,
        multiple_of=multiple_of,
        overflow=True,
    )
    for i, bucket in enumerate(buckets):
        rows = kept[which == i]
        for start in range(0, len(rows), bucket.rows):
            some = rows[start : start + bucket.rows]
            yield collate(pairs, BatchSpec(bucket, some, np.arange(len(some))), shard=shard)
