"""Lengths in tokens: histogram, outliers, dropped pairs."""

from typing import Any

import numpy as np

from data.pipeline import TokenPairs, filter_masks
from experiments.config import DataConfig
from experiments.inspection.section import SIDES, DataWarning, Section, indices_of, with_share

_ROWS, _BAR = 12, 40
_MIN_TOKENS = 10  # of the longer side, as in the filter: ratios of shorter pairs are noise
_FACTOR, _SPREADS = 2.0, 5.0


def draw_lengths(pairs: dict[str, TokenPairs], data: DataConfig) -> Section:
    """Draw a histogram of the lengths of training lines in tokens with EOS, and their quantiles."""
    values: dict[str, Any] = {}
    lines = []
    for split, split_pairs in pairs.items():
        values[split] = {}
        for name, side in zip(SIDES, split_pairs, strict=True):
            lengths = side.lengths + 1
            marks = np.percentile(lengths, [50, 90, 99, 100]).round().astype(int).tolist()
            quantiles = dict(zip(("median", "p90", "p99", "longest"), marks, strict=True))
            values[split][name] = quantiles | {"tokens": int(lengths.sum())}
            lines.append(
                f"{split} {name}: {int(lengths.sum()):,} tokens; half the lines have up to "
                f"{marks[0]}, 90% {marks[1]}, 99% {marks[2]}, the longest {marks[3]}"
            )
    train = [side.lengths + 1 for side in pairs["train"]]
    edges = _edges(int(np.percentile(np.concatenate(train), 99)))
    counts = [np.histogram(side, [*edges, np.inf])[0] for side in train]
    values["histogram"] = [
        {"from": int(edge)} | {n: int(c[i]) for n, c in zip(SIDES, counts, strict=True)}
        for i, edge in enumerate(edges)
    ]
    max_count = max(int(c.max()) for c in counts)
    names = [f"{a:,} to {b - 1:,}" for a, b in zip(edges, edges[1:], strict=False)]
    for row, name in enumerate([*names, f"{edges[-1]:,} and more"]):
        for side_name, count in zip(SIDES, counts, strict=True):
            bar = "#" * -(-_BAR * int(count[row]) // max_count)
            label = name if side_name == SIDES[0] else ""
            lines.append(f"{label:>14}  {side_name}  {int(count[row]):>9,}  {bar}".rstrip())
    lines.append(f"lengths in tokens, EOS included; data.max_length is {data.max_length}")
    return Section("lengths", values, lines)


def _edges(max_length: int) -> np.ndarray:
    """The minimum length of each row; the last row includes the longest 1%."""
    widths = [w * 10**p for p in range(6) for w in (1, 2, 5)]
    width = next(w for w in widths if -(-max_length // w) <= _ROWS)
    return np.arange(0, max_length, width) + 1


def find_outliers(pairs: dict[str, TokenPairs]) -> Section:
    """Find pairs whose length ratio is far from the median of the training text.

    Far means by more than a factor of 2 and more than 5 standard deviations, estimated from the
    median deviation, among pairs whose longer side has over 10 tokens.
    """
    ratios = {split: _ratios(split_pairs) for split, split_pairs in pairs.items()}
    finite = ratios["train"][np.isfinite(ratios["train"])]
    median = float(np.median(finite)) if len(finite) else 0.0
    spread = 1.4826 * float(np.median(np.abs(finite - median))) if len(finite) else 0.0
    limit = max(np.log(_FACTOR), _SPREADS * spread)
    values = {"usual": round(np.exp(median), 3), "factor": round(float(np.exp(limit)), 3)}
    lines = [
        f"a target has {np.exp(median):.2f} times its source's tokens (median); "
        f"outliers differ from that by a factor of over {np.exp(limit):.1f}"
    ]
    warnings = []
    for split, split_ratios in ratios.items():
        distances = np.abs(np.nan_to_num(split_ratios) - median)
        outliers = np.isfinite(split_ratios) & (distances > limit)
        values[split] = int(outliers.sum())
        lines.append(f"{split}: {with_share(int(outliers.sum()), len(split_ratios))} outliers")
        warnings += [
            DataWarning("ratio", split, 1, i, _tokens(pairs[split], i))
            for i in indices_of(outliers)
        ]
    return Section("ratio outliers", values, lines, warnings)


def _ratios(pairs: TokenPairs) -> np.ndarray:
    """Log ratio of target to source length; NaN for blank or short pairs."""
    source, target = pairs.source.lengths, pairs.target.lengths
    measured = (np.minimum(source, target) > 0) & (np.maximum(source, target) > _MIN_TOKENS)
    ratios = np.full(len(source), np.nan)
    ratios[measured] = np.log(target[measured] / source[measured])
    return ratios


def _tokens(pairs: TokenPairs, i: int) -> str:
    source, target = (int(side.lengths[i]) for side in pairs)
    return f"{target} tokens for the source's {source}"


def find_dropped(pairs: TokenPairs, data: DataConfig) -> Section:
    """Find training pairs that the filters drop."""
    faults = filter_masks(pairs, data.max_length, data.max_ratio)
    reasons = {
        "empty": "a blank side",
        "too_long": f"over data.max_length={data.max_length} tokens with EOS",
        "ratio": f"lengths over data.max_ratio={data.max_ratio:g} times each other's",
    }
    total = len(pairs.source)
    counts = {name: int(mask.sum()) for name, mask in faults._asdict().items()}
    num_kept = total - sum(counts.values())
    values = {"kept": num_kept, "dropped": counts}
    lines = [f"{with_share(num_kept, total)} of {total:,} training pairs are kept"]
    lines += [f"dropped: {with_share(counts[name], total)}, {reasons[name]}" for name in reasons]
    warnings = [
        DataWarning("dropped", "train", 0, i, f"dropped: {reasons[name]}: {_tokens(pairs, i)}")
        for name, mask in faults._asdict().items()
        for i in indices_of(mask)
    ]
    return Section("filters", values, lines, warnings)
