"""XLA settings for tests: skip optimization passes except where numerics depend on them.

Optimization would take half of the suite's time. The newer loop emitter would take half of the
remaining time; from jaxlib 0.11 on it is the only one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps

import jaxlib

_OPTION = "xla_cpu_use_fusion_emitters"
_HAS_OPTION = jaxlib.__version__.startswith("0.10.")


def xla_flags(devices: int = 1) -> str:
    """The value of XLA_FLAGS for a process with `devices` simulated devices."""
    flags = [f"--{_OPTION}=false"] * _HAS_OPTION
    flags += ["--xla_cpu_parallel_codegen_split_count=1"]  # small programs: 13% less CPU time
    return " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"])


@contextmanager
def default_optimizations() -> Iterator[None]:
    """Compiles with XLA's default optimizations."""
    import jax  # imported late: it reads XLA_FLAGS
    from jax._src import compiler  # no public JAX setting controls this option

    options = compiler.get_compile_options

    @wraps(options)
    def with_default_emitters(*args, env_options_overrides=None, **kwargs):
        overrides = {_OPTION: True} | (env_options_overrides or {})
        return options(*args, env_options_overrides=overrides, **kwargs)

    jax.config.update("jax_disable_most_optimizations", False)
    compiler.get_compile_options = with_default_emitters if _HAS_OPTION else options
    yield
    compiler.get_compile_options = options
    jax.config.update("jax_disable_most_optimizations", True)
