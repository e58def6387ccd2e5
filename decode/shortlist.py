"""Lexical shortlist: the output tokens allowed for a source's tokens.

Fast student models are trained and run with one: the likeliest translations of each source word, by
an alignment of the training text, and the most frequent words overall. It affects such a model's
quality, not only its speed.
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
    """Target ids by source id: for source id i, `ids[starts[i]:starts[i + 1]]`."""

    starts: np.ndarray  # [source V + 1] int64
    ids: np.ndarray  # int32
    always: np.ndarray  # int32: ids that every output may contain
    size: int  # size of the target vocabulary

    def allowed(self, source: Sequence[int], extra: Sequence[int] = ()) -> np.ndarray:
        """Words that an output may contain, as bits [size / 32, rounded up] uint32.

        They include EOS, UNK (which the search options may exclude) and the `extra` ids.
        """
        mask = np.zeros(num_mask_words(self.size) * BITS, bool)
        mask[[EOS, UNK, *extra]] = True
        mask[self.always] = True
        for id in set(source):
            mask[self.ids[self.starts[id] : self.starts[id + 1]]] = True
        return np.packbits(mask, bitorder="little").view("<u4").astype(np.uint32)

    def save(self, folder: Path) -> None:
        """Write the shortlist to a run's folder."""
        content = io.BytesIO()
        np.savez_compressed(content, **self._asdict())
        write_atomic(folder / NAME, content.getvalue())


def load(folder: Path) -> Shortlist | None:
    """Load a run's shortlist, or None if it has none; raises DataError if it is corrupt."""
    file = folder / NAME
    if not os.path.lexists(file):
        return None
    with library_errors(f"{file} is corrupt"):
        arrays = read_npz(file)
        starts, ids, always, size = (arrays[name] for name in Shortlist._fields)
        _check(starts, ids, always, size)
    return Shortlist(starts, ids, always, int(size))


def _check(starts: np.ndarray, ids: np.ndarray, always: np.ndarray, size: np.ndarray) -> None:
    axes = [x.ndim for x in (starts, ids, always, size)]
    if axes != [1, 1, 1, 0] or any(x.dtype.kind != "i" for x in (starts, ids, always, size)):
        raise ValueError("its arrays are not lists of ids")
    complete = len(starts) and starts[0] == 0 and starts[-1] == len(ids)
    if not complete or (starts[1:] < starts[:-1]).any():
        raise ValueError("its lists are not contiguous")
    if any(x.min(initial=0) < 0 or x.max(initial=0) >= size for x in (ids, always)):
        raise ValueError("it contains ids outside the vocabulary")


def num_mask_words(size: int) -> int:
    """Number of 32-bit words that hold a bit for each of `size` ids."""
    return -(-size // BITS)
