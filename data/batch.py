"""A batch of token ids, and the special ids."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = (PAD, BOS, EOS, UNK)
Numbers = TypeVar("Numbers")  # an array of NumPy's, or of JAX's within a program


class Batch(NamedTuple, Generic[Numbers]):
    """Source and target ids, each sentence ending in EOS; rows are filled up with PAD, or empty.

    Where rows hold several pairs, `src_segments` and `tgt_segments` say which of its row's pairs
    each id is of: 1, 2, .., and 0 for PAD.
    """

    src: Numbers  # [B,S] int32
    tgt: Numbers  # [B,T] int32, what is to be predicted: no BOS
    src_segments: Numbers | None = None  # [B,S] int32
    tgt_segments: Numbers | None = None  # [B,T] int32

    @property
    def segments(self):
        """Those of both sides; None where a row is one pair."""
        return None if self.src_segments is None else (self.src_segments, self.tgt_segments)

    @property
    def tgt_in(self):
        """What the decoder reads to predict `tgt`, [B,T]."""
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
    """What the decoder reads to predict `tgt` [B,T]: BOS, then all but the last token.

    With `segments` [B,T] each of a row's sentences begins with its own BOS.
    """
    xp = np if isinstance(tgt, np.ndarray) else _jnp()
    before = lambda x, first: xp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=first)  # noqa: E731
    shifted = before(tgt, BOS)
    if segments is None:
        return shifted
    return xp.where(segments != before(segments, 0), xp.asarray(BOS, tgt.dtype), shifted)


def _jnp():
    import jax.numpy as jnp  # data's readers and tokenisers need no JAX

    return jnp


def pad_rows(rows: Sequence[Sequence[int]], count: int, length: int) -> np.ndarray:
    """Lists of ids as int32 [count, length], PAD after each and in the rows beyond the last."""
    out = np.full((count, length), PAD, np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
