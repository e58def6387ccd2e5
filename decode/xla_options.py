"""XLA compiler options for search, by backend and precision."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp

# XLA's CPU compiler uses the library YNNPACK for products and reductions. For float32 products its
# other library, Eigen, is faster (experiments/LOG.md); for all other products YNNPACK is.
_FLOAT32 = ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE")
# The default scheduler starts operations early, and would gather all sharded layers at once.
_IN_TURN = ("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")


def jit(
    function: Callable, precision: str, platform: str, sharded: bool = False, **options
) -> jax.stages.Wrapped:
    """`jax.jit` with the compiler options for searches over weights of that precision.

    `platform` is that of the devices, such as "cpu". `sharded`: the weights are sharded
    (decode/sharded_weights.py).
    """
    requested = [_FLOAT32] * (precision == "float32") + [_IN_TURN] * sharded
    supported = {}
    if platform == "cpu":
        supported = {name: value for name, value in requested if _is_supported(name, value)}
    return jax.jit(function, compiler_options=supported or None, **options)


@cache
def _is_supported(name: str, value: str) -> bool:
    """Whether this compiler version supports the option, which is experimental."""
    trial = jax.jit(partial(jnp.add, 1.0), compiler_options={name: value})
    try:
        trial.lower(1.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
