"""A batch of token ids, and the ids that are not words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = (PAD, BOS, EOS, UNK)


class Batch(NamedTuple):
    """Source and target ids, each row ending in EOS and filled up with PAD; rows may be empty."""

    src: np.ndarray  # [B,S] int32
    tgt: np.ndarray  # [B,T] int32, what is to be predicted: no BOS


def shift_right(tgt):
    """What the decoder reads to predict `tgt` [B,T]: BOS, then all but the last token."""
    padded = tgt[:, :-1]
    xp = np if isinstance(tgt, np.ndarray) else _jnp()
    return xp.pad(padded, ((0, 0), (1, 0)), constant_values=BOS)


def _jnp():
    import jax.numpy as jnp  # data's readers and tokenisers need no JAX

    return jnp


def pad_rows(rows: Sequence[Sequence[int]], count: int, length: int) -> np.ndarray:
    """Lists of ids as int32 [count, length], PAD after each and in the rows beyond the last."""
    out = np.full((count, length), PAD, np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
