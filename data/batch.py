"""A batch of token ids, and the special ids."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = (PAD, BOS, EOS, UNK)
Numbers = TypeVar("Numbers")  # a NumPy array, or a JAX array within a program


class Batch(NamedTuple, Generic[Numbers]):
    """Source and target ids; each sentence ends in EOS, and PAD fills the rows; a row may be empty.

    If rows hold several pairs, `src_segments` and `tgt_segments` number the pair of each id within
    its row: 1, 2, .., and 0 for PAD.
    """

    src: Numbers  # [B,S] int32
    tgt: Numbers  # [B,T] int32, the targets to predict: no BOS
    src_segments: Numbers | None = None  # [B,S] int32
    tgt_segments: Numbers | None = None  # [B,T] int32

    @property
    def segments(self):
        """Segment numbers of both sides; None if each row is one pair."""
        return None if self.src_segments is None else (self.src_segments, self.tgt_segments)

    @property
    def tgt_in(self):
        """Decoder input [B,T] for predicting `tgt`."""
        return shift_right(self.tgt, self.tgt_segments)

    @property
    def num_targets(self) -> int:
        """Target positions, PAD included."""
        return self.tgt.size  # type: ignore[attr-defined]

    @property
    def num_positions(self) -> int:
        """Positions of both sides, PAD included."""
        return self.src.size + self.tgt.size  # type: ignore[attr-defined]

    @property
    def source_tokens(self):
        """Source tokens that are not PAD: float32, [] or a NumPy scalar."""
        return (self.src != PAD).sum(dtype=np.float32)  # type: ignore[attr-defined]


def shift_right(tgt, segments=None):
    """Decoder input for predicting `tgt` [B,T]: BOS, then all but the last token.

    With `segments` [B,T], each sentence of a row begins with its own BOS.
    """
    xp = np if isinstance(tgt, np.ndarray) else _jnp()
    shifted_by_one = lambda x, fill: xp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=fill)  # noqa: E731
    shifted = shifted_by_one(tgt, BOS)
    if segments is None:
        return shifted
    return xp.where(segments != shifted_by_one(segments, 0), xp.asarray(BOS, tgt.dtype), shifted)


def _jnp():
    import jax.numpy as jnp  # readers and tokenizers in data/ need no JAX

    return jnp


def pad_rows(rows: Sequence[Sequence[int]], count: int, length: int) -> np.ndarray:
    """Pad lists of ids to int32 [count, length]: PAD after each list and in unused rows."""
    out = np.full((count, length), PAD, np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
