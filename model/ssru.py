"""SSRU: a recurrence that is linear in time (Kim et al. 2019).

From "From Research to Production and Back: Ludicrously Fast Neural Machine Translation"; used in
Marian's fast student models:

    f_t = sigmoid(W_f x_t + b_f)    c_t = f_t c_{t-1} + (1 - f_t) W x_t    y_t = max(0, c_t)

Training computes all positions in parallel by an associative scan; a cached step computes one.
Axes: T positions, D d_model; `...` stands for the batch axes.
"""

import jax
import jax.numpy as jnp
from jax import Array


def ssru(
    candidate: Array, forget: Array, state: Array | None, starts: Array | None = None
) -> tuple[Array, Array]:
    """SSRU of W x and W_f x + b_f [...,T,D] -> y and the cells c, both float32 [...,T,D].

    `state` [...,D] is the cell before the first position; None: zeros. Positions marked in `starts`
    [...,T] begin a sentence and ignore all earlier positions.
    """
    gate = jax.nn.sigmoid(forget.astype(jnp.float32))
    update = (1.0 - gate) * candidate.astype(jnp.float32)
    if starts is not None:
        gate = jnp.where(starts[..., None], 0.0, gate)
    length = update.shape[-2]
    if state is not None and length == 1:  # avoids a scatter in a cached step
        update = gate * state[..., None, :] + update
    elif state is not None:
        update = update.at[..., 0, :].add(gate[..., 0, :] * state)
    cells = update
    if length > 1:
        _, cells = jax.lax.associative_scan(_compose, (gate, update), axis=cells.ndim - 2)
    return jax.nn.relu(cells), cells


def _compose(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Compose two successive steps c -> gate c + added into one."""
    (gate, added), (next_gate, next_added) = first, second
    return gate * next_gate, added * next_gate + next_added
