"""Batching of sentences for search, and segmentation of long ones."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, takewhile

from decode.options import InputError


def sizes() -> Iterator[int]:
    """16, 32, 48, 64, 96, 128, 256, 512 ..: few, and where most sentences are, close together."""
    yield from (16, 32, 48, 64, 96)
    for power in count(7):
        yield 1 << power


def precompiled_shapes(
    most: int, tokens_per_batch: int, devices: int = 1, longest: int | None = None
) -> list[tuple[int, int]]:
    """Shapes (rows, source length) for inputs of up to `most` tokens that come few at a time.

    So few that all can be compiled ahead: a length has rows for one input, for 8, 32, 128 .., and
    for a full batch. `longest` as in `batches`.
    """
    needed = -(-(most + 1) // 16) * 16  # holds EOS as well
    doubling = (32 << power for power in count())
    sources = [*takewhile(lambda size: 5 * size < 4 * needed, doubling), needed]
    shapes = []
    for source in dict.fromkeys(min(source, longest or source) for source in sources):
        full = max(1, tokens_per_batch // source)
        shapes += [(rows * devices, source) for rows in (*_fewer(full), full)]
    return shapes


def _fewer(full: int) -> Iterator[int]:
    several = chain([1], (8 * 4**power for power in count()))
    return takewhile(lambda rows: 4 * rows < 3 * full, several)


def fitting_shape(
    precompiled_shapes: Sequence[tuple[int, int]], count: int, length: int
) -> tuple[int, int] | None:
    """The smallest shape that holds `count` inputs of less than `length` tokens, or most of them.

    None where they are longer than any shape has room for.
    """
    source = min((source for _, source in precompiled_shapes if source >= length), default=None)
    if source is None:
        return None
    rows = [rows for rows, own in precompiled_shapes if own == source]
    return min((size for size in rows if size >= count), default=max(rows)), source


def batches(
    lengths: Sequence[int],
    tokens_per_batch: int,
    devices: int = 1,
    longest: int | None = None,
    shapes: Sequence[tuple[int, int]] = (),
) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Numbers of the sentences of one batch, longest first, and its shape (rows, source length).

    `lengths` count tokens without EOS, which the source length has room for: one of `sizes`, or
    `longest`. Each device's rows fill `tokens_per_batch`; each source length has one number of
    rows, and so one shape. Where one of `shapes` holds them, it is one of these instead.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    seen, at = set(), 0
    while at < len(order):
        left, most = len(order) - at, lengths[order[at]]
        if shape := fitting_shape(shapes, left, most + 1):
            yield order[at : at + shape[0]], shape
            at += shape[0]
            continue
        source = next(size for size in sizes() if size > most)  # holds EOS as well
        source = min(source, longest or source)
        rows = max(1, tokens_per_batch // source) * devices
        while source not in seen and rows // 2 >= left:  # a typed sentence is a row alone
            rows //= 2
        seen.add(source)
        rows = -(-rows // devices) * devices
        yield order[at : at + rows], (rows, source)
        at += rows


_CUTS = (
    r"(?<=[.!?;:…])\s+(?=\S)|(?<=[。！？；])\s*(?=\S)",  # after a sentence's end
    r"(?<=\S)\s+(?=\S)",  # between words
)


def split_text(
    text: str, fits: Callable[[str], bool], patterns: Sequence[str] = _CUTS
) -> Iterator[tuple[str, str]]:
    """Pieces of `text` that fit, in order, each after the gap before it: "" or one space.

    A text that does not fit is cut in two near its middle: after a sentence's end if there is
    one, else between words, else anywhere. Nothing is lost but white space at the cuts. Raises
    InputError where one character does not fit. `patterns` are those of the cuts that the text may
    have: its halves have no others.
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
    rest = split_text(text[end:], fits, patterns)
    yield " " if end > start else "", next(rest)[1]
    yield from rest
