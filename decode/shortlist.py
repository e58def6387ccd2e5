"""Lexical shortlist: the output tokens allowed for a source's tokens.

Fast students are trained and run with one: the likeliest translations of each source word, by an
alignment of their training text, and the most frequent words of all. It is a part of what such a
model says, and not only of how fast it says it.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.atomic_write import write_atomic
from data.batch import EOS, UNK
from data.library_errors import library_errors
from data.npz import read_npz
from decode.transforms import BITS

NAME = "shortlist.npz"  # in a run's folder


class Shortlist(NamedTuple):
    """Target ids by source id: those of source id i are `ids[starts[i]:starts[i + 1]]`."""

    starts: np.ndarray  # [source V + 1] int64
    ids: np.ndarray  # int32
    always: np.ndarray  # int32: those that every output may have
    size: int  # ids that the target vocabulary has

    def allowed(self, source: Sequence[int], also: Sequence[int] = ()) -> np.ndarray:
        """The words that an output may have, as bits [size / 32, rounded up] uint32.

        The end always; UNK as the search's options have it; and what is asked for, `also`.
        """
        found = np.zeros(bits_of(self.size) * BITS, bool)
        found[[EOS, UNK, *also]] = True
        found[self.always] = True
        for id in set(source):
            found[self.ids[self.starts[id] : self.starts[id + 1]]] = True
        return np.packbits(found, bitorder="little").view("<u4").astype(np.uint32)

    def save(self, folder: Path) -> None:
        """Writes it into a run's folder."""
        content = io.BytesIO()
        np.savez_compressed(content, **self._asdict())
        write_atomic(folder / NAME, content.getvalue())


def load(folder: Path) -> Shortlist | None:
    """That of a run's folder, or None where it has none; raises DataError where it is damaged."""
    file = folder / NAME
    if not os.path.lexists(file):
        return None
    with library_errors(f"{file} is damaged"):
        found = read_npz(file)
        starts, ids, always, size = (found[name] for name in Shortlist._fields)
        _check(starts, ids, always, size)
    return Shortlist(starts, ids, always, int(size))


def _check(starts: np.ndarray, ids: np.ndarray, always: np.ndarray, size: np.ndarray) -> None:
    axes = [x.ndim for x in (starts, ids, always, size)]
    if axes != [1, 1, 1, 0] or any(x.dtype.kind != "i" for x in (starts, ids, always, size)):
        raise ValueError("its arrays are not lists of ids")
    whole = len(starts) and starts[0] == 0 and starts[-1] == len(ids)
    if not whole or (starts[1:] < starts[:-1]).any():
        raise ValueError("its lists do not follow each other")
    if any(x.min(initial=0) < 0 or x.max(initial=0) >= size for x in (ids, always)):
        raise ValueError("it names words that there are not")


def bits_of(size: int) -> int:
    """How many words of bits hold so many ids."""
    return -(-size // BITS)
