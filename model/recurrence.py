"""A recurrence in the place of the decoder's self-attention: constant work and memory a token.

The cell is the SSRU of Kim et al. 2019 ("From Research to Production and Back: Ludicrously Fast
Neural Machine Translation"), which Marian's fast students have:

    f_t = sigmoid(W_f x_t + b_f)    c_t = f_t c_{t-1} + (1 - f_t) W x_t    y_t = max(0, c_t)

Only the sums run through time, and those are linear: training makes them for all positions at once.
Axes: B batch, W beam, T target length, D d_model; `...` stands for B, or B and W.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from model.config import TransformerConfig
from model.sharding import constrain


class Cell(NamedTuple):
    """One layer's state after the last position, float32 [...,D]; also its cache."""

    c: Array


class SSRU(nn.Module):
    """y_t of the cell above; nothing projects it further."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array, past: Cell | None, begins: Array | None) -> tuple[Array, Cell]:
        """x [...,T,D] after `past` (None: nothing) -> y [...,T,D], and the cell after the last.

        A position that `begins` [B,T] a sentence knows nothing of those before it.
        """
        gate = nn.sigmoid(self._dense("forget", bias=True)(x).astype(jnp.float32))
        added = (1.0 - gate) * self._dense("candidate", bias=False)(x).astype(jnp.float32)
        if begins is not None:
            gate = jnp.where(begins[..., None], 0.0, gate)
        if past is not None:
            added = added.at[..., 0, :].add(gate[..., 0, :] * past.c)
        cells = added
        if x.shape[-2] > 1:
            _, cells = jax.lax.associative_scan(_then, (gate, added), axis=x.ndim - 2)
        y = nn.relu(cells).astype(x.dtype)
        return constrain(y, "batch", "length", None), Cell(cells[..., -1, :])

    def _dense(self, name: str, bias: bool) -> nn.Dense:
        init = nn.with_logical_partitioning(nn.initializers.xavier_uniform(), ("embed", None))
        return nn.Dense(
            self.config.d_model,
            use_bias=bias,
            dtype=self.config.dtype,
            kernel_init=init,
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (None,)),
            name=name,
        )


def _then(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Two steps c -> gate c + added, one after the other, as one."""
    (gate, added), (next_gate, next_added) = first, second
    return gate * next_gate, added * next_gate + next_added
