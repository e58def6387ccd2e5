"""Who may attend to whom: boolean masks, True = may attend (paper 3.2.3).

All masks have the axes [B, 1, T, S] or broadcast to them, the 1 standing for the heads.
"""

import jax.numpy as jnp
from jax import Array


def padding_mask(valid: Array) -> Array:
    """Every query may attend to the real keys: `valid` [..., S] bool -> [..., 1, 1, S]."""
    return valid[..., None, None, :]


def causal_mask(queries: int, keys: int, index: Array | int = 0) -> Array:
    """The query at position `index + t` may attend to keys 0 .. index + t -> [1, T, S].

    `index` is the cursor of a cached step (0 when teacher-forced): keys beyond it are not yet
    written, so one comparison hides both the future and the empty part of the cache.
    """
    positions = jnp.asarray(index, jnp.int32) + jnp.arange(queries, dtype=jnp.int32)
    return (jnp.arange(keys, dtype=jnp.int32)[None, :] <= positions[:, None])[None]
