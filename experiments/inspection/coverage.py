"""Vocabulary coverage: unknown characters, rare tokens, the longest ones."""

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
    """Characters of valid and test without a piece: encoded as bytes, or unknown.

    A model learns little about the former and nothing about the latter.
    """
    values: dict[str, dict] = {}
    lines, warnings = [], []
    for number, (name, tokenizer) in enumerate(zip(SIDES, vocabulary, strict=True)):
        spelling = _Spelling(tokenizer)
        for split in SPLITS[1:]:
            pairs = splits[split]
            counts: Counter[str] = Counter()
            for i in range(len(pairs)):
                line = pairs[i][number]
                if missing := sorted(set(line) & spelling.missing(line)):
                    counts.update(c for c in line if c in missing)
                    text = "no piece for " + ", ".join(map(_named, missing))
                    warnings.append(DataWarning("unknown", split, number, i, text))
            values.setdefault(split, {})[name] = dict(counts)
            most_common = ", ".join(
                f"{_named(c)} ({n:,})" for c, n in counts.most_common(_MAX_LISTED)
            )
            tail = f": {most_common}" * bool(most_common)
            lines.append(f"{split} {name}: {len(counts):,} characters without a piece{tail}")
    return Section("unknown characters", values, lines, warnings)


class _Spelling:
    """Find characters without a piece; each character is encoded once."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._known: dict[str, bool] = {}

    def missing(self, line: str) -> set[str]:
        """The characters of a line that have no piece."""
        unseen = sorted(set(line) - self._known.keys())
        for character, ids in zip(unseen, self._tokenizer.encode(unseen), strict=True):
            pieces = self._tokenizer.pieces(ids)
            spelled = UNK in ids or any(map(_BYTE.fullmatch, pieces))
            self._known[character] = not spelled
        return {character for character in set(line) if not self._known[character]}


def _named(character: str) -> str:
    glyph = f" {character}" if character.isprintable() else ""
    return f"U+{ord(character):04X}{glyph} {unicodedata.name(character, 'without a name')}"


def count_pieces(pairs: TokenPairs, vocabulary: Vocabulary, rare_below: int) -> Section:
    """Subword frequencies in training: pieces seen less than `rare_below` times, longest pieces.

    Embeddings of rare pieces hardly learn: many rare pieces call for a smaller vocabulary.
    """
    values: dict[str, dict[str, Any]] = {}
    lines = []
    for name, tokenizer, piece_counts in _piece_counts(pairs, vocabulary):
        pieces = tokenizer.pieces(range(tokenizer.vocab_size))
        real = [i for i in range(UNK + 1, len(pieces)) if not _BYTE.fullmatch(pieces[i])]
        counts = np.array([int(piece_counts[i]) for i in real])
        rare = int((counts < rare_below).sum())
        longest = sorted(real, key=lambda i: (-len(pieces[i]), pieces[i]))[:_LONGEST]
        values[name] = {
            "size": tokenizer.vocab_size,
            "pieces": len(real),
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
            f"{name}: {figures['size']:,} ids, {len(real):,} of them pieces; {rare:,} pieces are "
            f"seen less than {rare_below:,} times in training, {figures['never']:,} never"
        )
        lines.append(
            f"{name}: {figures['bytes']:,} tokens are bytes of characters without a piece, "
            f"{figures['unknown']:,} are unknown"
        )
        long = ", ".join(f"{piece} ({count:,})" for piece, count in figures["longest"].items())
        lines.append(f"{name}: the longest pieces, and how often: {long}")
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
    """Evenly spaced training pairs as text and as pieces."""
    count = min(count, len(pairs))
    values, lines = [], []
    for number in range(count):
        index = (2 * number + 1) * len(pairs) // (2 * count)
        pair = pairs[index]
        cut = [
            tokenizer.pieces(tokenizer.encode([line])[0])
            for tokenizer, line in zip(vocabulary, pair, strict=True)
        ]
        values.append({"pair": index + 1, **pair._asdict(), "pieces": cut})
        for name, line, pieces in zip(SIDES, pair, cut, strict=True):
            label = f"pair {index + 1:,}" if name == SIDES[0] else ""
            lines += [f"{label:>14}  {name}  {line}", f"{'':>22}  {' '.join(pieces)}"]
    return Section("samples", {"pairs": values}, lines)
