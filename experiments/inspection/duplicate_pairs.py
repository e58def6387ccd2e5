"""Duplicates within a split, copied lines, and overlap of splits, found by hashes."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from data.pairs import SPLITS, Corpus, line_number
from experiments.inspection.section import (
    DataWarning,
    Section,
    format_location,
    indices_of,
    with_share,
)
from experiments.inspection.survey import Survey


def find_duplicates(splits: dict[str, Corpus], surveys: dict[str, Survey]) -> Section:
    """Find exact duplicate pairs within a split, and sources with several targets."""
    values, lines, warnings = {}, [], []
    for split, survey in surveys.items():
        first_index = _first_occurrence(survey.pairs)
        repeats = first_index != np.arange(len(survey))
        sources, count = np.unique(survey.source.hashes, return_counts=True)
        distinct = np.unique(survey.source.hashes[~repeats], return_counts=True)[1]
        num_ambiguous = int((distinct > 1).sum())
        values[split] = {
            "duplicate_pairs": int(repeats.sum()),
            "distinct_sources": len(sources),
            "sources_with_several_targets": num_ambiguous,
            "most_often": int(count.max()),
        }
        lines.append(
            f"{split}: {with_share(int(repeats.sum()), len(survey))} pairs repeat an earlier one; "
            f"sources with several targets: {num_ambiguous:,}; "
            f"most occurrences of one source: {count.max():,}"
        )
        warnings += [
            DataWarning(
                "duplicate", split, 0, i, f"the same pair as line {line_number(splits[split], j)}"
            )
            for i, j in (
                (i, int(first_index[i])) for i in indices_of(repeats & ~survey.source.blank)
            )
        ]
    return Section("duplicates", values, lines, warnings)


def find_copies(surveys: dict[str, Survey]) -> Section:
    """Find targets equal to their sources; warnings cover those with letters."""
    values, lines, warnings = {}, [], []
    for split, survey in surveys.items():
        has_letters = survey.copies & (survey.source.letters > 0)
        values[split] = {"copies": int(survey.copies.sum()), "with_letters": int(has_letters.sum())}
        lines.append(
            f"{split}: {with_share(int(survey.copies.sum()), len(survey))} targets equal their "
            f"sources, {int(has_letters.sum()):,} of them with letters"
        )
        text = "the target equals its source"
        warnings += [DataWarning("copy", split, 1, i, text) for i in indices_of(has_letters)]
    return Section("copies", values, lines, warnings)


def find_overlap(splits: dict[str, Corpus], surveys: dict[str, Survey]) -> Section:
    """Find pairs, sources and targets of valid and test that are also in another split."""
    values, lines, warnings = {}, [], []
    for earlier, later in combinations(SPLITS, 2):
        reference, tested = surveys[earlier], surveys[later]
        blank = tested.source.blank | tested.target.blank
        pairs = _first_matches(reference.pairs, tested.pairs, ~blank)
        sources = _first_matches(
            reference.source.hashes, tested.source.hashes, ~blank & (pairs < 0)
        )
        targets = _first_matches(
            reference.target.hashes, tested.target.hashes, ~blank & (pairs < 0)
        )
        counts = {
            name: int((matches >= 0).sum())
            for name, matches in (("pairs", pairs), ("sources", sources), ("targets", targets))
        }
        values[f"{later} in {earlier}"] = counts
        lines.append(
            f"{later} in {earlier}: {with_share(counts['pairs'], len(tested))} pairs; "
            f"in different pairs: sources {counts['sources']:,}, targets {counts['targets']:,}"
        )
        for kind, side, matches in (
            ("pair", 0, pairs),
            ("source", 0, sources),
            ("target", 1, targets),
        ):
            warnings += list(_overlaps(splits, kind, side, earlier, later, matches))
    return Section("overlap", values, lines, warnings)


def _overlaps(
    splits, kind: str, side: int, earlier: str, later: str, matches
) -> Iterator[DataWarning]:
    for i in indices_of(matches >= 0):
        location = format_location(splits, earlier, side, int(matches[i]))
        yield DataWarning(f"{kind} in {earlier}", later, side, i, f"the {kind} is also {location}")


def _first_occurrence(hashes: np.ndarray) -> np.ndarray:
    """For each hash, the index of its first occurrence, [N]."""
    _, index, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return index[inverse]


def _first_matches(hashes: np.ndarray, queries: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """For each query, its first index in `hashes`; -1 if absent or not in `mask`."""
    values, index = np.unique(hashes, return_index=True)
    positions = np.searchsorted(values, queries).clip(max=len(values) - 1)
    return np.where((values[positions] == queries) & mask, index[positions], -1)
