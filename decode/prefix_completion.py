"""All tokenizations of a prefix that ends inside a word.

The words before it are forced, with the vocabulary's own segmentation. For the last word, each next
token either is a prefix of the remainder of the word, or begins with the complete remainder.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from data.tokenizer import Tokenizer

_MAX_OPEN_BYTES = 64  # bytes of a word that are open: the bytes before them are forced
_BYTE_SPACE = "<0x20>"
_JOINERS = "'\u2019-"  # punctuation within words
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Completion:
    """All spellings of the remainder of a prefix, as an automaton.

    States number the reachable byte offsets of the remainder in order; state 0 is offset 0.
    """

    ends: list[list[int]]  # the ids that complete the word, by state
    steps: list[dict[int, int]]  # the ids that do not complete it, and the state after each
    spelling: tuple[int, ...] = ()  # one spelling, the vocabulary's own
    optional: bool = False  # an output may end without a completion

    def min_tokens(self) -> list[int | None]:
        """The minimum number of tokens that complete the word, by state; None if impossible."""
        fewest: list[int | None] = [None] * len(self.ends)
        for state in reversed(range(len(self.ends))):
            following = [fewest[after] for after in self.steps[state].values()]
            counts = [count + 1 for count in following if count is not None]
            if self.ends[state]:
                counts.append(1)
            fewest[state] = 0 if self.optional else min(counts, default=None)
        return fewest

    def restrict(self, allowed: np.ndarray) -> "Completion":
        """The completion restricted to the `allowed` [V] bool ids."""
        ends = [[id for id in ids if allowed[id]] for ids in self.ends]
        steps = [{id: after for id, after in step.items() if allowed[id]} for step in self.steps]
        return replace(self, ends=ends, steps=steps)


def split_open_word(
    prefix: str, ids: Sequence[int], tokenizer: Tokenizer
) -> tuple[list[int], Completion | None]:
    """Split a prefix's `ids` into forced ids and the completion of an open last word.

    A prefix that ends in a space is followed by a new word or by EOS. A prefix that ends in
    punctuation is forced unchanged, and so is every prefix if the tokenizer's texts are not the
    concatenation of its surfaces: the completion is then None.
    """
    forced = [*ids], None
    text, table = prefix.strip(), _surface_table(tokenizer)
    if not text or table is None:
        return forced
    surfaces = [table.surfaces[id] for id in ids]
    (decoded,) = tokenizer.decode([ids])
    spelled = b"".join(surfaces).decode(errors="replace")
    if not all(surfaces) or spelled.strip(" ") != decoded.strip(" "):
        return forced
    if prefix[-1].isspace():
        if surfaces[-1].endswith(b" ") or _spaceless(text[-1]) or not table.with_prefix(b" "):
            return forced
        return [*ids], replace(_completion(table, b" ", (0,)), optional=True)
    if not (text[-1].isalnum() or unicodedata.category(text[-1])[0] == "M" or text[-1] in _JOINERS):
        return forced
    body = b"".join(surfaces).removesuffix(b" ")
    starts = np.cumsum([0, *map(len, surfaces[:-1])]).tolist()
    # The word starts at the token that starts with its space, or else at the token after the space,
    # or else at the token that contains the space.
    space = body.rfind(b" ")
    start = next((s for s in (space, space + 1) if s in starts), None)
    if start is None:
        start = max(start for start in starts if start <= space)
    if len(body) - start > _MAX_OPEN_BYTES:
        start = next((s for s in starts if s >= len(body) - _MAX_OPEN_BYTES), starts[-1])
    remainder, num_forced = body[start:], starts.index(start)
    # A text's leading space is not decoded, so the word may also begin without it.
    unspaced = start == 0 and remainder[:1] == b" " and len(remainder) > 1
    unspaced = unspaced and not decoded.startswith(" ")
    completion = _completion(table, remainder, (0, 1) if unspaced else (0,), ids[num_forced:])
    if unspaced:  # a space spelled as a byte would be decoded
        for id in [id for id in completion.steps[0] if tokenizer.pieces([id]) == [_BYTE_SPACE]]:
            del completion.steps[0][id]
    return [*ids[:num_forced]], completion


class _Table:
    """A vocabulary's surfaces, sorted, so that those with a common prefix are adjacent."""

    def __init__(self, surfaces: list[bytes]):
        self.surfaces = surfaces
        self._ids = sorted((i for i, s in enumerate(surfaces) if s), key=surfaces.__getitem__)
        self._sorted = [surfaces[id] for id in self._ids]

    def with_prefix(self, text: bytes) -> list[int]:
        """The ids whose surfaces begin with `text`."""
        start = bisect_left(self._sorted, text)
        return self._ids[start : bisect_left(self._sorted, True, start, key=_lacks_prefix(text))]

    def with_surface(self, text: bytes) -> list[int]:
        """The ids whose surface is `text`."""
        start = bisect_left(self._sorted, text)
        return self._ids[start : bisect_left(self._sorted, text + b"\0", start)]


def _lacks_prefix(text: bytes):
    return lambda surface: not surface.startswith(text)


@lru_cache(maxsize=2)
def _surface_table(tokenizer: Tokenizer) -> _Table | None:
    surfaces = tokenizer.surfaces()
    return None if surfaces is None else _Table(surfaces)


def _completion(
    table: _Table, remainder: bytes, offsets: tuple[int, ...], spelling: Sequence[int] = ()
) -> Completion:
    """All spellings of `remainder` from any of the `offsets`; each reachable offset is a state."""
    states = {0: 0}
    ends: list[list[int]] = []
    steps: list[dict[int, int]] = []
    for position in range(len(remainder)):
        if position not in states:
            continue
        states[position] = len(ends)
        starts = offsets if position == 0 else (position,)
        ends.append([id for start in starts for id in table.with_prefix(remainder[start:])])
        transitions = {
            id: end
            for start in starts
            for end in range(start + 1, len(remainder))
            for id in table.with_surface(remainder[start:end])
        }
        steps.append(transitions)
        states |= dict.fromkeys(transitions.values(), 0)
    numbered_steps = [{id: states[end] for id, end in transitions.items()} for transitions in steps]
    return Completion(ends, numbered_steps, tuple(spelling))


def _spaceless(character: str) -> bool:
    """Whether the character is of a script without spaces between words."""
    return unicodedata.name(character, "").startswith(_SPACELESS)
