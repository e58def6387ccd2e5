"""Parameters with logical axis names, by which they are sharded (model/sharding.py)."""

import flax.linen as nn
from jax.nn.initializers import Initializer


def partitioned(init: Initializer, names: tuple[str | None, ...]) -> Initializer:
    """Wrap an initializer for `Module.param`, giving the parameter's axes logical names.

    The wrapped initializer returns a box with the names; `param` unboxes it for the module.
    """
    return nn.with_logical_partitioning(init, names)  # type: ignore[return-value]  # the box
