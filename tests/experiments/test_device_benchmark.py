"""benchmarks.device with small models on the CPU."""

import time

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from benchmarks.device_decoding import measure_search, step_limit
from benchmarks.device_training import LENGTH, PAIR, measure_training, packed_batch, train_config

pytestmark = pytest.mark.slow
RATES = {"matmul_flops": 1e11, "copy_bytes_per_second": 1e10}


def test_training_is_measured_beside_the_compiled_memory():
    result = measure_training("base", "auto", small=True, rounds=1, rates=RATES)
    assert result["kernel"] == "plain" and result["aot_bytes"] > 0 and result["utilisation"] > 0
    assert result["tokens_per_second"] == round(2 * 4 * LENGTH / result["step_seconds"])


@pytest.mark.parametrize("name", ["W1", "W2"])
def test_a_search_is_measured_beside_its_limit(name):
    result = measure_search(name, 2, small=True, rounds=1, rates=RATES)
    assert 0 < result["fraction_of_limit"] < 1 and result["step_seconds"] > 0


def test_the_limit_counts_weights_caches_and_products():
    config = train_config("base", small=True)
    weights = [np.zeros(1000, np.int8)]
    rates = {"matmul_flops": np.inf, "copy_bytes_per_second": 1.0}
    # One decoder layer, keys and values of one head of 64: bfloat16 sources, float32 targets.
    cache = 2 * 128 * (2 * 30 + 4 * 3 * 40 / 2)
    assert step_limit(config, weights, 2, 3, 30, 40, rates) == 1000 + cache
    products = 2 * 6 * (64 * (3 * 128 + 2 * 128) + 64 * 256)
    rates = {"matmul_flops": 1.0, "copy_bytes_per_second": np.inf}
    assert step_limit(config, weights, 2, 3, 30, 40, rates) == products


def test_a_batch_is_packed_rows_without_padding():
    batch = packed_batch(3, 50)
    assert batch.src.shape == (3, LENGTH) and batch.src.min() >= 4
    assert np.bincount(batch.src_segments[0])[1:].tolist() == [PAIR] * (LENGTH // PAIR)


def test_a_failure_is_reported_and_late_parts_are_skipped(benchmark_main):
    device = benchmark_main("device")

    def fail():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED:\nout of memory")

    with flagsaver.flagsaver(minutes=1.0):
        now = time.monotonic()
        assert list(device._run([("a", fail), ("b", dict)], now)) == [
            ("a", {"failed": "RESOURCE_EXHAUSTED: out of memory"}),
            ("b", {}),
        ]
        late = list(device._run([("a", fail)], now - 61))
    assert late == [("a", {"skipped": "no time left"})]
    rows = device._table([{}, {"what": "a", "failed": "x"}, {"what": "b", "tokens_per_second": 5}])
    assert "| a: x |" in rows[2] and rows[3].startswith("| b | 5 |")
