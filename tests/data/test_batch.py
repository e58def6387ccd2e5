"""`shift_right` and padding compared with plain Python."""

import jax.numpy as jnp
import numpy as np
import pytest

import model.transformer
from data.batch import BOS, EOS, PAD, SPECIALS, UNK, pad_rows, shift_right


def test_special_ids_are_distinct_and_come_first():
    assert PAD == model.transformer.PAD  # model/ imports no other package
    assert sorted(SPECIALS) == sorted({PAD, BOS, EOS, UNK}) == [0, 1, 2, 3]


@pytest.mark.parametrize("xp", [np, jnp])
def test_decoder_inputs_are_shifted_right(xp):
    tgt = xp.asarray([[7, 8, EOS, PAD], [9, EOS, PAD, PAD]], dtype=xp.int32)
    shifted = shift_right(tgt)
    assert shifted.dtype == tgt.dtype
    assert isinstance(shifted, np.ndarray) == (xp is np)
    assert shifted.tolist() == [[BOS, *row[:-1]] for row in tgt.tolist()]


def test_rows_are_padded_to_length_and_row_count():
    out = pad_rows([[5, 6, 7], [], [8]], 5, 4)
    assert out.dtype == np.int32
    assert out.tolist() == [[5, 6, 7, 0], [0] * 4, [8, 0, 0, 0], [0] * 4, [0] * 4]


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[1], [2], [3]]])
def test_rows_that_do_not_fit_are_rejected(rows):
    with pytest.raises((ValueError, IndexError)):
        pad_rows(rows, 2, 2)
