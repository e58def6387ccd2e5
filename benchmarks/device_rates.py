"""What a device reaches: the rate of a large matrix product, and of a copy in its memory."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def measure_rates(small: bool, rounds: int) -> dict[str, float]:
    """FLOP/s of a bfloat16 matrix product and bytes/s of a copy (read and written)."""
    n = 512 if small else 8192
    x = jnp.ones((n, n), jnp.bfloat16)
    product = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32))
    values = jnp.ones((1 << 20) if small else (1 << 28), jnp.float32)
    copy = jax.jit(lambda x: x * 2.0)
    return {
        "matmul_flops": 2 * n**3 / median_seconds(lambda: product(x), rounds),
        "copy_bytes_per_second": 2 * values.nbytes / median_seconds(lambda: copy(values), rounds),
    }


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    """Median time of `run` to its end on the device, after one run that compiles."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
