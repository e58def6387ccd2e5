"""Batching of sentences for search, and segmentation of long inputs."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, takewhile

from decode.options import InputError


def length_buckets() -> Iterator[int]:
    """Padded lengths 16, 32, 48, 64, 96, 128, 256, 512 ..: few, and dense at common lengths."""
    yield from (16, 32, 48, 64, 96)
    for power in count(7):
        yield 1 << power


def precompiled_shapes(
    max_tokens: int, tokens_per_batch: int, devices: int = 1, longest: int | None = None
) -> list[tuple[int, int]]:
    """Shapes (rows, source length) for small batches of inputs of up to `max_tokens` tokens.

    Few enough to compile all in advance: each length has shapes for 1, 8, 32, 128 .. rows and for a
    full batch. `longest` as in `batches`.
    """
    max_source = -(-(max_tokens + 1) // 16) * 16  # with EOS
    doubling = (32 << power for power in count())
    sources = [*takewhile(lambda size: 5 * size < 4 * max_source, doubling), max_source]
    shapes = []
    for source in dict.fromkeys(min(source, longest or source) for source in sources):
        full_rows = max(1, tokens_per_batch // source)
        shapes += [(rows * devices, source) for rows in (*_partial_rows(full_rows), full_rows)]
    return shapes


def _partial_rows(full_rows: int) -> Iterator[int]:
    row_counts = chain([1], (8 * 4**power for power in count()))
    return takewhile(lambda rows: 4 * rows < 3 * full_rows, row_counts)


def fitting_shape(
    precompiled_shapes: Sequence[tuple[int, int]], count: int, length: int
) -> tuple[int, int] | None:
    """The smallest shape that holds `count` inputs of less than `length` tokens.

    If none has that many rows, the shape with the most rows; None if all are too short.
    """
    source = min((source for _, source in precompiled_shapes if source >= length), default=None)
    if source is None:
        return None
    rows = [rows for rows, size in precompiled_shapes if size == source]
    return min((size for size in rows if size >= count), default=max(rows)), source


def batches(
    lengths: Sequence[int],
    tokens_per_batch: int,
    devices: int = 1,
    longest: int | None = None,
    shapes: Sequence[tuple[int, int]] = (),
) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Group sentences into batches: the sentences' indices, longest first, and the batch's shape.

    A shape is (rows, source length). `lengths` count tokens without EOS; the source length, one of
    `length_buckets` or `longest`, includes it. Each device's rows fill `tokens_per_batch`; each
    source length has one number of rows, and so one shape. If one of `shapes` holds the batch, it
    is used instead.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    used_lengths, start = set(), 0
    while start < len(order):
        remaining, max_length = len(order) - start, lengths[order[start]]
        if shape := fitting_shape(shapes, remaining, max_length + 1):
            yield order[start : start + shape[0]], shape
            start += shape[0]
            continue
        source = next(size for size in length_buckets() if size > max_length)  # with EOS
        source = min(source, longest or source)
        rows = max(1, tokens_per_batch // source) * devices
        while source not in used_lengths and rows // 2 >= remaining:  # one sentence: one row
            rows //= 2
        used_lengths.add(source)
        rows = -(-rows // devices) * devices
        yield order[start : start + rows], (rows, source)
        start += rows


_CUT_PATTERNS = (
    r"(?<=[.!?;:…])\s+(?=\S)|(?<=[。！？；])\s*(?=\S)",  # after a sentence's end
    r"(?<=\S)\s+(?=\S)",  # between words
)


def split_text(
    text: str, fits: Callable[[str], bool], patterns: Sequence[str] = _CUT_PATTERNS
) -> Iterator[tuple[str, str]]:
    """Split `text` into segments that fit, in order, as pairs (separator, segment).

    The separator before a segment is "" or one space. A text that does not fit is cut in two near
    its middle: after a sentence's end if possible, else between words, else anywhere. Only white
    space at the cuts is lost. Raises InputError if a single character does not fit. `patterns`
    match the possible cuts; the halves use the remaining patterns.
    """
    if fits(text):
        yield "", text
        return
    if len(text) < 2:
        raise InputError(f"--long_input is too small for the single character {text!r}")
    middle = len(text) // 2
    start = end = middle
    while patterns:
        cuts = [match.span() for match in re.finditer(patterns[0], text)]
        if cuts:
            start, end = min(cuts, key=lambda cut: abs(cut[0] - middle))
            break
        patterns = patterns[1:]
    yield from split_text(text[:start], fits, patterns)
    tail = split_text(text[end:], fits, patterns)
    yield " " if end > start else "", next(tail)[1]
    yield from tail
