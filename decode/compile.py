"""A search is compiled with the options that its backend and precision are fastest with."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp

# XLA's CPU compiler gives products and reductions to the library YNNPACK. For float32 products its
# other library, Eigen, is the faster (experiments/LOG.md), for all else YNNPACK.
_CPU_FLOAT32 = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def jit(function: Callable, precision: str, **options) -> Callable:
    """`jax.jit` with the compiler options for searches over weights of that precision."""
    wanted = jax.default_backend() == "cpu" and precision == "float32" and _known()
    return jax.jit(function, compiler_options=_CPU_FLOAT32 if wanted else None, **options)


@cache
def _known() -> bool:
    """Whether this version of the compiler has the option: it is experimental and may go."""
    trial = jax.jit(partial(jnp.add, 1.0), compiler_options=_CPU_FLOAT32)
    try:
        trial.lower(1.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
