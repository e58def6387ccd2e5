"""XLA compiler options for search, by backend and precision."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp

# XLA's CPU compiler gives products and reductions to the library YNNPACK. For float32 products its
# other library, Eigen, is the faster (experiments/LOG.md), for all else YNNPACK.
_FLOAT32 = ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE")
# By itself it begins all that it can at once, and so would gather all layers of split weights.
_IN_TURN = ("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")


def jit(function: Callable, precision: str, split: bool = False, **options) -> Callable:
    """`jax.jit` with the compiler options for searches over weights of that precision.

    `split`: no device has all of these (decode/sharded_weights.py).
    """
    wanted = [_FLOAT32] * (precision == "float32") + [_IN_TURN] * split
    found = {}
    if jax.default_backend() == "cpu":
        found = {name: value for name, value in wanted if _known(name, value)}
    return jax.jit(function, compiler_options=found or None, **options)


@cache
def _known(name: str, value: str) -> bool:
    """Whether this version of the compiler has the option: it is experimental and may go."""
    trial = jax.jit(partial(jnp.add, 1.0), compiler_options={name: value})
    try:
        trial.lower(1.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
