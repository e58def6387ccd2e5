"""Section of an inspection: figures, and warnings with file and line."""

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
    side: int  # 0: source, 1: target
    index: int  # type: ignore[assignment]  # of the pair, from 0; hides tuple.index
    text: str


@dataclass(frozen=True)
class Section:
    """Figures as JSON values (`values`) and as text (`lines`), and warnings."""

    name: str
    values: dict
    lines: Sequence[str]
    warnings: Sequence[DataWarning] = field(default=())


def locate(splits: dict[str, Corpus], split: str, side: int, index: int) -> tuple[str, int]:
    """The file and line number of a pair; without files, the split and the pair number from 1."""
    pairs = splits[split]
    files = getattr(pairs, "files", None)
    return files[side] if files else f"{split} {SIDES[side]}", line_number(pairs, index)


def format_location(splits: dict[str, Corpus], split: str, side: int, index: int) -> str:
    """Format the file and line number of a pair."""
    file, line = locate(splits, split, side, index)
    return f"{file}, line {line}"


def indices_of(mask: np.ndarray) -> Iterable[int]:
    """The indices at which a mask is set."""
    return map(int, np.flatnonzero(mask))


def with_share(count: int, total: int) -> str:
    """Format a count with its share: 12 (0.4%)."""
    if not count:
        return "0"
    share = f"{count / total:.1%}" if count >= total / 1000 else "below 0.1%"
    return f"{count:,} ({share})"
