"""Duplicates: within a split, copied lines, and overlap of splits; by hashes."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from data.pairs import SPLITS, Corpus, line_number
from experiments.inspection.section import DataWarning, Section, numbers, share, where
from experiments.inspection.survey import Survey


def find_duplicates(splits: dict[str, Corpus], surveys: dict[str, Survey]) -> Section:
    """Pairs that repeat an earlier one of their split exactly, and sources with many targets."""
    values, lines, warnings = {}, [], []
    for split, each in surveys.items():
        first = _first(each.pairs)
        repeats = first != np.arange(len(each))
        sources, count = np.unique(each.source.hashes, return_counts=True)
        distinct = np.unique(each.source.hashes[~repeats], return_counts=True)[1]
        several = int((distinct > 1).sum())
        values[split] = {
            "duplicate_pairs": int(repeats.sum()),
            "distinct_sources": len(sources),
            "sources_with_several_targets": several,
            "most_often": int(count.max()),
        }
        lines.append(
            f"{split}: {share(int(repeats.sum()), len(each))} pairs repeat an earlier one; sources "
            f"with several targets: {several:,}; most occurrences of one source: {count.max():,}"
        )
        warnings += [
            DataWarning(
                "duplicate", split, 0, i, f"the same pair as line {line_number(splits[split], j)}"
            )
            for i, j in ((i, int(first[i])) for i in numbers(repeats & ~each.source.blank))
        ]
    return Section("duplicates", values, lines, warnings)


def find_copies(surveys: dict[str, Survey]) -> Section:
    """Targets that are their sources; a warning is of those with letters."""
    values, lines, warnings = {}, [], []
    for split, each in surveys.items():
        wordy = each.copies & (each.source.letters > 0)
        values[split] = {"copies": int(each.copies.sum()), "with_letters": int(wordy.sum())}
        lines.append(
            f"{split}: {share(int(each.copies.sum()), len(each))} targets are their sources, "
            f"{int(wordy.sum()):,} of them with letters"
        )
        text = "the target is its source"
        warnings += [DataWarning("copy", split, 1, i, text) for i in numbers(wordy)]
    return Section("copies", values, lines, warnings)


def find_overlap(splits: dict[str, Corpus], surveys: dict[str, Survey]) -> Section:
    """Pairs, sources and targets of valid and test that are in train as well, or in each other."""
    values, lines, warnings = {}, [], []
    for earlier, later in combinations(SPLITS, 2):
        there, here = surveys[earlier], surveys[later]
        blank = here.source.blank | here.target.blank
        pairs = _seen(there.pairs, here.pairs, ~blank)
        sources = _seen(there.source.hashes, here.source.hashes, ~blank & (pairs < 0))
        targets = _seen(there.target.hashes, here.target.hashes, ~blank & (pairs < 0))
        counts = {
            name: int((found >= 0).sum())
            for name, found in (("pairs", pairs), ("sources", sources), ("targets", targets))
        }
        values[f"{later} in {earlier}"] = counts
        lines.append(
            f"{later} in {earlier}: {share(counts['pairs'], len(here))} pairs; "
            f"with another partner: sources {counts['sources']:,}, targets {counts['targets']:,}"
        )
        for kind, side, found in ("pair", 0, pairs), ("source", 0, sources), ("target", 1, targets):
            warnings += list(_overlaps(splits, kind, side, earlier, later, found))
    return Section("overlap", values, lines, warnings)


def _overlaps(
    splits, kind: str, side: int, earlier: str, later: str, found
) -> Iterator[DataWarning]:
    for i in numbers(found >= 0):
        there = where(splits, earlier, side, int(found[i]))
        yield DataWarning(f"{kind} in {earlier}", later, side, i, f"the {kind} is also {there}")


def _first(hashes: np.ndarray) -> np.ndarray:
    """The index of the first equal one for each, [N]."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return first[inverse]


def _seen(there: np.ndarray, here: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Of each of `here` its equal's first index in `there`; -1: none, or not `among` the asked."""
    values, first = np.unique(there, return_index=True)
    at = np.searchsorted(values, here).clip(max=len(values) - 1)
    return np.where((values[at] == here) & among, first[at], -1)
