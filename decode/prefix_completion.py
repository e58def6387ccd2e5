"""All tokenizations of a prefix that ends inside a word.

The words before it are forced, with the vocabulary's own segmentation. For the last word, each next
token either is a prefix of the rest of the word, or begins with the whole rest.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from data.tokenizer import Tokenizer

_MAX_OPEN = 64  # bytes of a word that stay open: the bytes before them are forced
_BYTE_SPACE = "<0x20>"
_JOINERS = "'\u2019-"  # punctuation within words
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Completion:
    """All spellings of the rest of a prefix, as an automaton.

    A state is how much of the rest is written, in order; state 0: nothing.
    """

    ends: list[list[int]]  # the ids that complete the word, by state
    steps: list[dict[int, int]]  # the ids that stay within it, and the state after each
    spelling: tuple[int, ...] = ()  # one spelling, the vocabulary's own
    optional: bool = False  # an output may end without a completion

    def needs(self) -> list[int | None]:
        """The fewest tokens that complete the word, by state; None where none can."""
        fewest: list[int | None] = [None] * len(self.ends)
        for state in reversed(range(len(self.ends))):
            needed = [fewest[after] for after in self.steps[state].values()]
            counts = [count + 1 for count in needed if count is not None]
            if self.ends[state]:
                counts.append(1)
            fewest[state] = 0 if self.optional else min(counts, default=None)
        return fewest

    def among(self, allowed: np.ndarray) -> "Completion":
        """The completion restricted to the `allowed` [V] bool ids."""
        ends = [[id for id in ids if allowed[id]] for ids in self.ends]
        steps = [{id: to for id, to in step.items() if allowed[id]} for step in self.steps]
        return replace(self, ends=ends, steps=steps)


def open_end(
    prefix: str, ids: Sequence[int], tokenizer: Tokenizer
) -> tuple[list[int], Completion | None]:
    """Split a prefix's `ids` into forced ids and the completion of an open last word.

    After a prefix that ends in a space, a new word or nothing follows. A prefix that ends in
    punctuation is forced as it is, and so is every prefix if the tokenizer's texts are not the
    concatenation of its surfaces: the completion is None then.
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
    # The word begins with the token that begins with its space, or else with the token after the
    # space, or else with the token that contains the space.
    space = body.rfind(b" ")
    begin = next((s for s in (space, space + 1) if s in starts), None)
    if begin is None:
        begin = max(start for start in starts if start <= space)
    if len(body) - begin > _MAX_OPEN:
        begin = next((s for s in starts if s >= len(body) - _MAX_OPEN), starts[-1])
    rest, num_forced = body[begin:], starts.index(begin)
    # A text's leading space is not shown, so the word may also begin without it.
    bare = begin == 0 and rest[:1] == b" " and len(rest) > 1 and not shown.startswith(" ")
    completion = _completion(table, rest, (0, 1) if bare else (0,), ids[num_forced:])
    if bare:  # a space spelled as a byte would be shown
        for id in [id for id in completion.steps[0] if tokenizer.pieces([id]) == [_BYTE_SPACE]]:
            del completion.steps[0][id]
    return [*ids[:num_forced]], completion


class _Table:
    """A vocabulary's surfaces, sorted: those with a common prefix are adjacent."""

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
    """All spellings of `rest` from any of the offsets `begins`.

    Each offset that can be reached is a state.
    """
    reached = {0: 0}
    ends: list[list[int]] = []
    steps: list[dict[int, int]] = []
    for position in range(len(rest)):
        if position not in reached:
            continue
        reached[position] = len(ends)
        starts = begins if position == 0 else (position,)
        ends.append([id for start in starts for id in table.starting(rest[start:])])
        transitions = {
            id: end
            for start in starts
            for end in range(start + 1, len(rest))
            for id in table.equal(rest[start:end])
        }
        steps.append(transitions)
        reached |= dict.fromkeys(transitions.values(), 0)
    numbered = [{id: reached[end] for id, end in transitions.items()} for transitions in steps]
    return Completion(ends, numbered, tuple(spelling))


def _spaceless(character: str) -> bool:
    """Whether the character is of a script without spaces between words."""
    return unicodedata.name(character, "").startswith(_SPACELESS)
