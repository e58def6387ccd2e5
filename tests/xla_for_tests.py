"""How XLA compiles for tests: in haste, but where its machine code is the point.

Optimising it would take half of the suite's time, and of its two ways to write loops the newer one
half of what is left. From jaxlib 0.11 on there is only that one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps

import jaxlib

_OPTION = "xla_cpu_use_fusion_emitters"
_THERE = jaxlib.__version__.startswith("0.10.")


def xla_flags(devices: int = 1) -> str:
    """The value of XLA_FLAGS for a process with so many simulated devices."""
    haste = [f"--{_OPTION}=false"] * _THERE
    return " ".join([*haste, f"--xla_force_host_platform_device_count={devices}"])


@contextmanager
def as_users_have_it() -> Iterator[None]:
    """Compiles neither way in haste."""
    import jax  # which reads XLA_FLAGS
    from jax._src import compiler  # no setting of JAX's reaches this option

    options = compiler.get_compile_options

    @wraps(options)
    def usual(*args, env_options_overrides=None, **more):
        given = {_OPTION: True} | (env_options_overrides or {})
        return options(*args, env_options_overrides=given, **more)

    jax.config.update("jax_disable_most_optimizations", False)
    compiler.get_compile_options = usual if _THERE else options
    yield
    compiler.get_compile_options = options
    jax.config.update("jax_disable_most_optimizations", True)
