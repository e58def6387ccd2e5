"""Dynamic loss scaling for float16 (Micikevicius et al. 2018).

The loss is multiplied by a scale before differentiation, and the gradient is divided by it. An
update whose gradient is not finite is skipped and halves the scale; many finite updates double it.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

INITIAL_SCALE = 2.0**15
GROWTH_INTERVAL = 2000  # finite updates in a row before the scale doubles


class LossScale(NamedTuple):
    """The scale, float32, and the number of finite updates since its last change, int32."""

    scale: Array
    good: Array


def init_loss_scale() -> LossScale:
    """The initial loss scale for training in float16."""
    return LossScale(jnp.float32(INITIAL_SCALE), jnp.int32(0))


def update_loss_scale(scale: LossScale, finite: Array) -> LossScale:
    """Update the scale after an update; `finite` [] is whether its gradient was finite."""
    good = jnp.where(finite, scale.good + 1, 0)
    grows = good == GROWTH_INTERVAL
    factor = jnp.where(finite, jnp.where(grows, 2.0, 1.0), 0.5)
    return LossScale(jnp.clip(scale.scale * factor, 1.0, 2.0**24), jnp.where(grows, 0, good))
