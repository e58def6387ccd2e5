"""A section of an inspection: figures, and warnings with file and line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data.pairs import Corpus, line_number

SIDES = ("source", "target")


class DataWarning(NamedTuple):
    """A warning about one line of one side of a split."""

    kind: str
    split: str
    side: int  # 0 the source's, 1 the target's
    index: int  # type: ignore[assignment]  # of the pair, from 0 on; no tuple's method
    text: str


@dataclass(frozen=True)
class Section:
    """Figures for programs (`values`), the same for people (`lines`), and warnings."""

    name: str
    values: dict
    lines: Sequence[str]
    warnings: Sequence[DataWarning] = field(default=())


def place(splits: dict[str, Corpus], split: str, side: int, index: int) -> tuple[str, int]:
    """The file and line number of a pair; without files, the split and the pair number from 1."""
    pairs = splits[split]
    files = getattr(pairs, "files", None)
    return files[side] if files else f"{split} {SIDES[side]}", line_number(pairs, index)


def where(splits: dict[str, Corpus], split: str, side: int, index: int) -> str:
    """File and line number in words."""
    file, line = place(splits, split, side, index)
    return f"{file}, line {line}"


def numbers(mask: np.ndarray) -> Iterable[int]:
    """The indices at which a mask is set."""
    return map(int, np.flatnonzero(mask))


def share(part: int, whole: int) -> str:
    """Format a count with its share: 12 (0.4%)."""
    if not part:
        return "0"
    return f"{part:,} ({part / whole:.1%})" if part >= whole / 1000 else f"{part:,} (below 0.1%)"
