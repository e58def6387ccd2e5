"""From sentence pairs to batches: tokenise, filter, bucket, shuffle, batch.

The batch of any step is a function of the step's number, so a run that resumes finds its place
at once and sees what it would have seen.
"""

import copy
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import grain
import numpy as np

from data.batch import EOS, PAD, Batch
from data.buckets import Bucket, make_buckets
from data.corpus import DataError, Source
from data.tokenizer import Vocabulary


class Ragged:
    """Rows of ids of any length in one array: row i is ids[offsets[i] : offsets[i + 1]]."""

    def __init__(self, rows: list[list[int]]):
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.ids = np.array(list(itertools.chain.from_iterable(rows)), np.int32)

    @classmethod
    def join(cls, parts: list["Ragged"]) -> "Ragged":
        """The rows of all parts, in order."""
        whole = cls([])
        whole.ids = np.concatenate([whole.ids, *(part.ids for part in parts)])
        lengths = [part.lengths for part in parts]
        whole.offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]), dtype=int)])
        return whole

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

    def digest(self) -> str:
        """A hexadecimal digest by which two tokenised texts can be told apart."""
        parts = (part for side in self for part in (side.offsets, side.ids))
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def tokenize(
    pairs: Source,
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


def filter_pairs(
    pairs: TokenPairs, max_length: int, max_ratio: float
) -> tuple[np.ndarray, FilterReport]:
    """Numbers of the pairs to train on: none empty, none longer than `max_length` tokens with EOS.

    Nor one whose sides' lengths differ by more than the factor `max_ratio`, where the longer has
    over 10 tokens. Raises DataError if none is left.
    """
    source, target = pairs.source.lengths, pairs.target.lengths
    longest, shortest = np.maximum(source, target), np.minimum(source, target)
    empty = shortest == 0
    too_long = ~empty & (longest + 1 > max_length)
    ratio = ~empty & ~too_long & (longest > max_ratio * shortest) & (longest > 10)
    kept = np.flatnonzero(~(empty | too_long | ratio))
    report = FilterReport(len(kept), int(empty.sum()), int(too_long.sum()), int(ratio.sum()))
    if not len(kept):
        raise DataError(
            f"no pair is left: {report}; see --config.data.max_length, --config.data.max_ratio"
        )
    return kept, report


class BatchPlan:
    """Which pairs make the batch of which step: `plan[step]` -> (bucket, numbers of pairs).

    Every epoch has the same number of batches and every kept pair once, in an order that depends
    on seed and epoch alone. A bucket's last batch may have fewer pairs than rows.
    """

    def __init__(self, pairs: TokenPairs, kept: np.ndarray, seed: int, **bucket_options):
        self.kept, self.seed, self._order, self._ahead = kept, seed, 0, 0
        source, target = (side.lengths[kept] + 1 for side in pairs)
        self.buckets, self._which = make_buckets(source, target, **bucket_options)
        counts = np.bincount(self._which, minlength=len(self.buckets))
        each = [-(-int(n) // bucket.rows) for n, bucket in zip(counts, self.buckets, strict=True)]
        self.batches_per_epoch = sum(each)
        positions = sum(
            n * bucket.rows * (bucket.source + bucket.target)
            for n, bucket in zip(each, self.buckets, strict=True)
        )
        self.tokens = int(source.sum() + target.sum())  # in an epoch
        self.padding = 1 - self.tokens / positions
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def reordered(self, order: int) -> "BatchPlan":
        """The same pairs in batches of the same shapes, in another order for every `order`."""
        other = copy.copy(self)
        other._order = order  # 0 is the order that a plan begins with
        other._epoch = lru_cache(maxsize=2)(other._make_epoch)
        return other

    def ahead(self, batches: int) -> "BatchPlan":
        """The same plan so many batches further on (or back, where negative) at every step."""
        other = copy.copy(self)
        other._ahead = batches
        return other

    def _make_epoch(self, epoch: int) -> list[tuple[Bucket, np.ndarray]]:
        rng = np.random.default_rng([self.seed, epoch, *[self._order] * (self._order > 0)])
        order = rng.permutation(len(self.kept))
        batches = []
        for i, bucket in enumerate(self.buckets):
            rows = self.kept[order[self._which[order] == i]]
            batches += [
                (bucket, rows[j : j + bucket.rows]) for j in range(0, len(rows), bucket.rows)
            ]
        return [batches[i] for i in rng.permutation(len(batches))]

    def __len__(self) -> int:
        return 1 << 40  # steps never run out

    def __getitem__(self, step: int) -> tuple[Bucket, np.ndarray]:
        epoch, index = divmod(int(step) + self._ahead, self.batches_per_epoch)
        return self._epoch(epoch)[index]

    def __str__(self):
        shapes = ", ".join(f"{b.rows}x({b.source}, {b.target})" for b in self.buckets)
        return (
            f"{self.batches_per_epoch} batches an epoch in {len(self.buckets)} shapes "
            f"(rows x (source, target)): {shapes}; padding {self.padding:.1%}"
        )


class Shard(NamedTuple):
    """What a host holds of every batch: of so many equal parts of its rows, those of these numbers.

    A host may hold several parts, and a part may be on several hosts.
    """

    parts: tuple[int, ...] = (0,)
    count: int = 1


WHOLE = Shard()


def collate(
    pairs: TokenPairs,
    bucket: Bucket,
    rows: np.ndarray,
    multiple_of: int = 1,
    shard: Shard = WHOLE,
) -> Batch:
    """The batch of these pairs, EOS after each side, PAD up to the bucket's shape.

    Rows of PAD make their number a multiple of `multiple_of`, which the shard's count divides. Only
    the shard's rows are made, part after part.
    """
    each = bucket.with_rows(multiple_of).rows // shard.count
    own = [row for part in shard.parts for row in range(part * each, (part + 1) * each)]

    def side(ids: Ragged, length: int) -> np.ndarray:
        out = np.full((len(own), length), PAD, np.int32)
        for i, row in enumerate(own):
            if row >= len(rows):
                continue
            sentence = ids[rows[row]]
            out[i, : len(sentence)] = sentence
            out[i, len(sentence)] = EOS
        return out

    return Batch(side(pairs.source, bucket.source), side(pairs.target, bucket.target))


def train_batches(
    pairs: TokenPairs,
    plan: BatchPlan,
    start_step: int = 0,
    shard: Shard = WHOLE,
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
    make = steps.map(lambda item: collate(pairs, *item, multiple_of, shard))
    return iter(make.to_iter_dataset(options))


def eval_batches(
    pairs: TokenPairs,
    kept: np.ndarray,
    *,
    tokens_per_batch: int,
    multiple_of: int = 1,
    count: int = 4,
    shard: Shard = WHOLE,
) -> Iterator[Batch]:
    """Batches of the pairs of these numbers once, none left out, in at most `count` shapes.

    Of each the shard's rows. A pair longer than `tokens_per_batch` has few rows beside it, rather
    than being refused.
    """
    source, target = (side.lengths[kept] + 1 for side in pairs)
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
            yield collate(pairs, bucket, rows[start : start + bucket.rows], shard=shard)
