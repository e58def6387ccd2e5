"""Recurrent layer in place of the decoder's self-attention: constant cost per token.

The formula is a row of model/mixers.py. Axes: B batch, W beam, T target length, D d_model; `...`
stands for B, or B and W.
"""

from typing import NamedTuple

import flax.linen as nn
from jax import Array

from model.config import TransformerConfig
from model.dense import Dense
from model.partitioned import partitioned
from model.sharding import constrain


class Cell(NamedTuple):
    """One layer's state after the last position, float32 [...,D]; also its cache."""

    c: Array


class Recurrent(nn.Module):
    """The recurrence named by `model.decoder_mixer`; it has no output projection."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self, x: Array, cache: Cell | None, starts: Array | None = None
    ) -> tuple[Array, Cell]:
        """x [...,T,D] -> y [...,T,D], and the cell after the last position.

        `cache` is the cell before the first position; None: zeros. A position marked in `starts`
        [B,T] begins a sentence: it ignores all earlier positions.
        """
        kind = self.config.recurrence
        assert kind is not None
        projected = [self._dense(name, bias)(x) for name, bias in kind.projections]
        y, cells = kind.function(*projected, None if cache is None else cache.c, starts)
        return constrain(y.astype(x.dtype), "batch", "length", None), Cell(cells[..., -1, :])

    def _dense(self, name: str, bias: bool) -> Dense:
        return Dense(
            self.config.d_model,
            self.config.dtype,
            partitioned(nn.initializers.xavier_uniform(), ("embed", None)),
            partitioned(nn.initializers.zeros, (None,)) if bias else None,
            name=name,
        )
