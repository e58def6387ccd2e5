"""Searches of benchmarks.device: W1 and W2 at several batch sizes, beside the bandwidth limit."""

from dataclasses import replace

import jax
import numpy as np

from benchmarks.device_rates import median_seconds
from benchmarks.device_training import train_config
from benchmarks.heed_system import parameters
from benchmarks.workloads import FIRST_WORD, workload
from decode.families import make_generator
from decode.inputs import Segment
from decode.options import SearchOptions
from decode.search_batch import PaddedSizes, make_search_batch
from decode.sharded_search import compile_search
from decode.sharded_weights import shard_weights
from model.sharding import make_mesh


def measure_search(name: str, batch: int, *, small: bool, rounds: int, rates: dict) -> dict:
    """Measure one search of `batch` sentences of 30 tokens, outputs of 40, in bfloat16.

    The limit of a step is the time to read all weights and the attention caches once at the rate of
    a copy, and of its matrix products at the rate of a large one.
    """
    config = replace(train_config("base", small), dropout=0.0)
    settings = workload(name, replace(config, vocab_size=max(config.vocab_size, FIRST_WORD + 2)))
    length, target = (4, 6) if small else (len(settings.sources[0]), settings.lengths[0])
    width = settings.beam_size
    method = dict(beam_size=width) if width > 1 else dict(method="greedy")
    options = SearchOptions(min_length=target, **method)
    mesh, family = make_mesh(devices=jax.devices()[:1]), make_generator(config)
    weights = shard_weights(family, parameters(config), mesh, "bfloat16")
    rng = np.random.default_rng(0)
    segments = [
        Segment(row, 0, "", rng.integers(FIRST_WORD, config.vocab_size, length).tolist(), [], [],
                limit=target, seed=0)
        for row in range(batch)
    ]  # fmt: skip
    request = make_search_batch(segments, batch, 32, PaddedSizes(0, 0, 0), config.target_vocab)
    request = jax.tree.map(jax.numpy.asarray, request)
    search = compile_search((family,), mesh, options, "bfloat16")
    seconds = median_seconds(lambda: search((weights,), request, max_length=target), rounds)
    limit = step_limit(config, weights, batch, width, length, target, rates)
    return {
        "tokens_per_second": round(batch * target / seconds),
        "step_seconds": seconds / target,
        "fraction_of_limit": round(limit * target / seconds, 3),
        "peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def step_limit(c, weights, batch: int, width: int, source: int, target: int, rates: dict) -> float:
    """Seconds of an average step at the device's measured rates; the encoder is not counted."""
    read = sum(x.nbytes for x in jax.tree.leaves(weights))
    per_position = c.decoder_layers * c.kv_heads * (c.key_width + c.value_width)
    read += batch * per_position * (2 * source + 4 * width * target / 2)  # bfloat16 and float32
    attention = c.num_heads * (c.key_width + c.value_width)
    layer = c.d_model * (3 * attention + 2 * c.d_ff)
    products = 2 * batch * width * (c.decoder_layers * layer + c.d_model * c.target_vocab)
    return read / rates["copy_bytes_per_second"] + products / rates["matmul_flops"]
