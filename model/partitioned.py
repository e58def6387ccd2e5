"""Parameters with named axes, by which they are laid out on a mesh (model/sharding.py)."""

import flax.linen as nn
from jax.nn.initializers import Initializer


def partitioned(init: Initializer, names: tuple[str | None, ...]) -> Initializer:
    """`init` of a parameter whose axes have these names, for `Module.param`.

    What it makes is boxed with the names, but no module sees it so: `param` takes it out.
    """
    return nn.with_logical_partitioning(init, names)  # type: ignore[return-value]  # the box
