"""All tokenizations of a prefix that ends inside a word.

The words before it are forced, in the pieces that the vocabulary cuts them into. Of the last one
each next piece is one that the rest of it begins with, or one that begins with all of the rest.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from data.tokenizer import Tokenizer

_MOST = 64  # bytes of a word that stay open: what is before them is forced as well
_BYTE_SPACE = "<0x20>"
_JOINERS = "'\u2019-"  # punctuation within words
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Completion:
    """How the rest of a prefix may be spelled: a state is how much of it is, in order; 0: none."""

    ends: list[list[int]]  # the ids that complete it, by state
    steps: list[dict[int, int]]  # the ids that do not, and the state after each
    spelling: tuple[int, ...] = ()  # one way, as the vocabulary cuts it
    optional: bool = False  # an output may end without it

    def needs(self) -> list[int | None]:
        """How many tokens complete it at least, by state; None where none can."""
        found: list[int | None] = [None] * len(self.ends)
        for state in reversed(range(len(self.ends))):
            needed = [found[after] for after in self.steps[state].values()]
            counts = [count + 1 for count in needed if count is not None]
            if self.ends[state]:
                counts.append(1)
            found[state] = 0 if self.optional else min(counts, default=None)
        return found

    def among(self, allowed: np.ndarray) -> "Completion":
        """What of it is spelled by the `allowed` [V] bool ids alone."""
        ends = [[id for id in ids if allowed[id]] for ids in self.ends]
        steps = [{id: to for id, to in each.items() if allowed[id]} for each in self.steps]
        return replace(self, ends=ends, steps=steps)


def open_end(
    prefix: str, ids: Sequence[int], tokenizer: Tokenizer
) -> tuple[list[int], Completion | None]:
    """Of a prefix and its `ids`: those that are forced, and how an output goes on from there.

    After a prefix that ends in a space comes a new word or nothing. One that ends in punctuation is
    forced as it is, and so is any where the tokenizer's texts are not the sum of its surfaces: that
    is what None stands for.
    """
    forced = [*ids], None
    text, table = prefix.strip(), _table(tokenizer)
    if not text or table is None:
        return forced
    parts = [table.surfaces[id] for id in ids]
    (shown,) = tokenizer.decode([ids])
    if not all(parts) or b"".join(parts).decode(errors="replace").strip(" ") != shown.strip(" "):
        return forced
    if prefix[-1].isspace():
        if parts[-1].endswith(b" ") or _spaceless(text[-1]) or not table.starting(b" "):
            return forced
        return [*ids], replace(_completion(table, b" ", (0,)), optional=True)
    if not (text[-1].isalnum() or unicodedata.category(text[-1])[0] == "M" or text[-1] in _JOINERS):
        return forced
    body = b"".join(parts).removesuffix(b" ")
    starts = np.cumsum([0, *map(len, parts[:-1])]).tolist()
    # The word begins with the piece that begins with its space, or else after that, or else with
    # the piece that has it within.
    space = body.rfind(b" ")
    begin = next((s for s in (space, space + 1) if s in starts), None)
    if begin is None:
        begin = max(start for start in starts if start <= space)
    if len(body) - begin > _MOST:
        begin = next((s for s in starts if s >= len(body) - _MOST), starts[-1])
    rest, whole = body[begin:], starts.index(begin)
    # The space that a text begins with is not shown: the word may as well begin without it.
    bare = begin == 0 and rest[:1] == b" " and len(rest) > 1 and not shown.startswith(" ")
    found = _completion(table, rest, (0, 1) if bare else (0,), ids[whole:])
    if bare:  # the space as a byte would be shown
        for id in [id for id in found.steps[0] if tokenizer.pieces([id]) == [_BYTE_SPACE]]:
            del found.steps[0][id]
    return [*ids[:whole]], found


class _Table:
    """A vocabulary's surfaces in order: those with the same beginning are neighbours."""

    def __init__(self, surfaces: list[bytes]):
        self.surfaces = surfaces
        self._ids = sorted((i for i, s in enumerate(surfaces) if s), key=surfaces.__getitem__)
        self._sorted = [surfaces[id] for id in self._ids]

    def starting(self, text: bytes) -> list[int]:
        """The ids whose surfaces begin with `text`."""
        first = bisect_left(self._sorted, text)
        return self._ids[first : bisect_left(self._sorted, True, first, key=_beyond(text))]

    def equal(self, text: bytes) -> list[int]:
        """The ids whose surface is `text`."""
        first = bisect_left(self._sorted, text)
        return self._ids[first : bisect_left(self._sorted, text + b"\0", first)]


def _beyond(text: bytes):
    return lambda surface: not surface.startswith(text)


@lru_cache(maxsize=2)
def _table(tokenizer: Tokenizer) -> _Table | None:
    surfaces = tokenizer.surfaces()
    return None if surfaces is None else _Table(surfaces)


def _completion(
    table: _Table, rest: bytes, begins: tuple[int, ...], spelling: Sequence[int] = ()
) -> Completion:
    """All spellings of `rest` from any of the places `begins` on.

    A place in it is a state if it can be reached.
    """
    reached = {0: 0}
    ends: list[list[int]] = []
    steps: list[dict[int, int]] = []
    for place in range(len(rest)):
        if place not in reached:
            continue
        reached[place] = len(ends)
        starts = begins if place == 0 else (place,)
        ends.append([id for start in starts for id in table.starting(rest[start:])])
        here = {
            id: end
            for start in starts
            for end in range(start + 1, len(rest))
            for id in table.equal(rest[start:end])
        }
        steps.append(here)
        reached |= dict.fromkeys(here.values(), 0)
    numbered = [{id: reached[end] for id, end in here.items()} for here in steps]
    return Completion(ends, numbered, tuple(spelling))


def _spaceless(character: str) -> bool:
    """Whether it is of a script that has no spaces between words."""
    return unicodedata.name(character, "").startswith(_SPACELESS)
