"""Shift right and padding, against the plainest way to write them."""

import jax.numpy as jnp
import numpy as np
import pytest

import model.transformer
from data.batch import BOS, EOS, PAD, SPECIALS, UNK, pad_rows, shift_right


def test_special_ids_are_distinct_and_come_first():
    assert PAD == model.transformer.PAD  # model/ imports nothing of ours, so it says so itself
    assert sorted(SPECIALS) == sorted({PAD, BOS, EOS, UNK}) == [0, 1, 2, 3]


@pytest.mark.parametrize("xp", [np, jnp])
def test_the_decoder_reads_what_came_before(xp):
    tgt = xp.asarray([[7, 8, EOS, PAD], [9, EOS, PAD, PAD]], dtype=xp.int32)
    shifted = shift_right(tgt)
    assert shifted.dtype == tgt.dtype
    assert isinstance(shifted, np.ndarray) == (xp is np)
    assert shifted.tolist() == [[BOS, *row[:-1]] for row in tgt.tolist()]


def test_rows_are_padded_behind_and_below():
    out = pad_rows([[5, 6, 7], [], [8]], 5, 4)
    assert out.dtype == np.int32
    assert out.tolist() == [[5, 6, 7, 0], [0] * 4, [8, 0, 0, 0], [0] * 4, [0] * 4]


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[1], [2], [3]]])
def test_what_does_not_fit_is_never_cut(rows):
    with pytest.raises((ValueError, IndexError)):
        pad_rows(rows, 2, 2)
