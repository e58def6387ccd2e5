"""Vocabulary coverage: unknown characters, rare pieces, longest pieces."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.batch import UNK
from data.pairs import SPLITS, Corpus
from data.pipeline import TokenPairs
from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from experiments.inspection.section import SIDES, DataWarning, Section

_BYTE = re.compile("<0x[0-9A-F]{2}>")
_LONGEST, _MAX_LISTED = 15, 12


def find_unknown(splits: dict[str, Corpus], vocabulary: Vocabulary) -> Section:
    """Find characters of valid and test without a piece: encoded as bytes, or unknown.

    A model learns little about the former and nothing about the latter.
    """
    values: dict[str, dict] = {}
    lines, warnings = [], []
    for number, (name, tokenizer) in enumerate(zip(SIDES, vocabulary, strict=True)):
        lookup = _PieceLookup(tokenizer)
        for split in SPLITS[1:]:
            pairs = splits[split]
            counts: Counter[str] = Counter()
            for i in range(len(pairs)):
                line = pairs[i][number]
                if missing := sorted(set(line) & lookup.missing(line)):
                    counts.update(c for c in line if c in missing)
                    text = "no piece for " + ", ".join(map(_describe, missing))
                    warnings.append(DataWarning("unknown", split, number, i, text))
            values.setdefault(split, {})[name] = dict(counts)
            most_common = ", ".join(
                f"{_describe(c)} ({n:,})" for c, n in counts.most_common(_MAX_LISTED)
            )
            tail = f": {most_common}" if most_common else ""
            lines.append(f"{split} {name}: {len(counts):,} characters without a piece{tail}")
    return Section("unknown characters", values, lines, warnings)


class _PieceLookup:
    """Find characters without a piece; each character is encoded once."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._has_piece: dict[str, bool] = {}

    def missing(self, line: str) -> set[str]:
        """The characters of a line that have no piece."""
        uncached = sorted(set(line) - self._has_piece.keys())
        for character, ids in zip(uncached, self._tokenizer.encode(uncached), strict=True):
            pieces = self._tokenizer.pieces(ids)
            missing = UNK in ids or any(map(_BYTE.fullmatch, pieces))
            self._has_piece[character] = not missing
        return {character for character in set(line) if not self._has_piece[character]}


def _describe(character: str) -> str:
    glyph = f" {character}" if character.isprintable() else ""
    return f"U+{ord(character):04X}{glyph} {unicodedata.name(character, 'without a name')}"


def count_pieces(pairs: TokenPairs, vocabulary: Vocabulary, rare_below: int) -> Section:
    """Count pieces in training: those that occur less than `rare_below` times, the longest.

    Embeddings of rare pieces learn little: with many rare pieces, choose a smaller vocabulary.
    """
    values: dict[str, dict[str, Any]] = {}
    lines = []
    for name, tokenizer, piece_counts in _piece_counts(pairs, vocabulary):
        pieces = tokenizer.pieces(range(tokenizer.vocab_size))
        piece_ids = [i for i in range(UNK + 1, len(pieces)) if not _BYTE.fullmatch(pieces[i])]
        counts = np.array([int(piece_counts[i]) for i in piece_ids])
        rare = int((counts < rare_below).sum())
        longest = sorted(piece_ids, key=lambda i: (-len(pieces[i]), pieces[i]))[:_LONGEST]
        values[name] = {
            "size": tokenizer.vocab_size,
            "pieces": len(piece_ids),
            "rare_below": rare_below,
            "seen_less": rare,
            "never": int((counts == 0).sum()),
            "bytes": int(
                sum(piece_counts[i] for i in range(len(pieces)) if _BYTE.fullmatch(pieces[i]))
            ),
            "unknown": int(piece_counts[UNK]),
            "longest": {pieces[i]: int(piece_counts[i]) for i in longest},
        }
        figures = values[name]
        lines.append(
            f"{name}: {figures['size']:,} ids, {len(piece_ids):,} of them pieces; {rare:,} pieces "
            f"occur less than {rare_below:,} times in training, {figures['never']:,} never"
        )
        lines.append(
            f"{name}: {figures['bytes']:,} tokens are bytes of characters without a piece, "
            f"{figures['unknown']:,} are unknown"
        )
        longest_text = ", ".join(
            f"{piece} ({count:,})" for piece, count in figures["longest"].items()
        )
        lines.append(f"{name}: the longest pieces and their counts: {longest_text}")
    return Section("pieces", values, lines)


def _piece_counts(
    pairs: TokenPairs, vocabulary: Vocabulary
) -> Iterator[tuple[str, Tokenizer, np.ndarray]]:
    """Yield each vocabulary with the counts [V] of its ids in the text."""
    counts = [
        np.bincount(side.ids, minlength=tokenizer.vocab_size)
        for side, tokenizer in zip(pairs, vocabulary, strict=True)
    ]
    if vocabulary.shared:
        yield "vocabulary", vocabulary.source, counts[0] + counts[1]
    else:
        yield from zip(SIDES, vocabulary, counts, strict=True)


def show_samples(pairs: Corpus, vocabulary: Vocabulary, count: int = 5) -> Section:
    """Show evenly spaced training pairs as text and as pieces."""
    count = min(count, len(pairs))
    values, lines = [], []
    for number in range(count):
        index = (2 * number + 1) * len(pairs) // (2 * count)
        pair = pairs[index]
        pair_pieces = [
            tokenizer.pieces(tokenizer.encode([line])[0])
            for tokenizer, line in zip(vocabulary, pair, strict=True)
        ]
        values.append({"pair": index + 1, **pair._asdict(), "pieces": pair_pieces})
        for name, line, pieces in zip(SIDES, pair, pair_pieces, strict=True):
            label = f"pair {index + 1:,}" if name == SIDES[0] else ""
            lines += [f"{label:>14}  {name}  {line}", f"{'':>22}  {' '.join(pieces)}"]
    return Section("samples", {"pairs": values}, lines)
