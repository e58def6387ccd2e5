"""Which words an output may be made of, by the words of its source: a lexical shortlist.

Fast students are trained and run with one: the likeliest translations of each source word, by an
alignment of their training text, and the most frequent words of all. It is a part of what such a
model says, and not only of how fast it says it.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.batch import EOS, UNK
from data.corpus import DataError
from data.files import replace_file
from decode.transforms import WORD

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
        found = np.zeros(bits_of(self.size) * WORD, bool)
        found[[EOS, UNK, *also]] = True
        found[self.always] = True
        for id in set(source):
            found[self.ids[self.starts[id] : self.starts[id + 1]]] = True
        return np.packbits(found, bitorder="little").view("<u4").astype(np.uint32)

    def save(self, folder: Path) -> None:
        """Writes it into a run's folder."""
        content = io.BytesIO()
        np.savez_compressed(content, **self._asdict())
        replace_file(folder / NAME, content.getvalue())


def load(folder: Path) -> Shortlist | None:
    """That of a run's folder, or None where it has none; raises DataError where it is damaged."""
    file = folder / NAME
    try:
        with file.open("rb") as content, np.load(content, allow_pickle=False) as found:
            words = Shortlist(*(found[name] for name in Shortlist._fields[:3]), int(found["size"]))
            if words.ids.max(initial=0) >= words.size or words.starts[-1] != len(words.ids):
                raise ValueError("it names words that there are not")
            return words
    except FileNotFoundError:
        return None
    except Exception as error:  # of many kinds, as of damaged archives
        raise DataError(f"{file} is damaged: {' '.join(str(error).split())}") from None


def bits_of(size: int) -> int:
    """How many words of bits hold so many ids."""
    return -(-size // WORD)
