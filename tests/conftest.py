"""Pytest configuration: eight simulated CPU devices and JAX's strict promotion rules."""

import gc
import os
from pathlib import Path

from tests.xla_for_tests import default_optimizations, xla_flags

# A compilation cache shared by all workers and commands, which compile the same small programs.
# `--cache-clear` empties it.
_CACHE = Path(__file__).parents[1] / ".pytest_cache/d"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_CACHE / "jax")
os.environ["XDG_CACHE_HOME"] = str(_CACHE)
os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(1 << 30)  # a limit makes sharing safe
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["XLA_FLAGS"] = xla_flags(devices=8)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)
flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which pytest leaves unparsed


@pytest.fixture
def optimized():
    """XLA's default optimizations, for tests that depend on the order of summation."""
    with default_optimizations():
        yield


@pytest.fixture(scope="module", autouse=True)
def frozen_heap():
    """Excludes JAX's caches from garbage collection, and clears them when they are large."""
    yield
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    if pages * os.sysconf("SC_PAGE_SIZE") > 2 << 30:
        jax.clear_caches()
        gc.unfreeze()
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    from tests.experiments.commands import stop_fork_server

    stop_fork_server()
