"""Heed as a system of benchmarks/decode.py."""

import statistics
import time
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workloads import Workload
from decode import xla_options
from decode.batching import batches
from decode.families import make_generator
from decode.inputs import Segment
from decode.options import SearchOptions
from decode.search import search
from decode.search_batch import PaddedSizes, make_search_batch
from decode.weights import pack
from model import Transformer, TransformerConfig


def parameters(config: TransformerConfig):
    """Random parameters for all systems, drawn leaf by leaf, which needs much less memory."""
    ids, random = jnp.ones((1, 2), jnp.int32), np.random.default_rng(0)
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), ids, ids)

    def draw(path, leaf):
        if path[-1].key in ("scale", "bias"):
            return jnp.full(leaf.shape, path[-1].key == "scale", jnp.float32)
        noise = random.standard_normal(leaf.shape, np.float32)
        noise *= config.d_model**-0.5
        return jnp.asarray(noise)

    return jax.tree_util.tree_map_with_path(draw, nn.unbox(shapes)["params"])


def make(config: TransformerConfig, workload: Workload, precision: str, cores: int, tokens: int):
    """Return a function that translates the workload once, and fields of its JSON line."""
    weights = jax.jit(partial(pack, config, precision=precision))(parameters(config))
    jax.block_until_ready(weights)
    method = dict(beam_size=workload.beam_size) if workload.beam_size > 1 else dict(method="greedy")
    min_length = max(workload.lengths)
    options = SearchOptions(min_length=min_length, **method)  # each output ends at its limit
    search_fn = xla_options.jit(
        lambda weights, batch, max_length: search(
            [make_generator(config)], [weights], batch, options=options, max_length=max_length
        ),
        precision,
        jax.default_backend(),
        static_argnames="max_length",
    )
    jobs = list(_jobs(workload, tokens, config.target_vocab))

    def run():
        for batch, max_length in jobs:
            jax.block_until_ready(search_fn(weights, batch, max_length=max_length))

    shapes = {(batch.src.shape, max_length) for batch, max_length in jobs}
    fields = dict(
        compilations=len(shapes), gflop_per_token=_gflop(config, workload) / workload.tokens
    )
    return run, fields | {"machine_gflops": round(machine_gflops(precision), 1)}


def _jobs(workload: Workload, tokens: int, vocab: int):
    groups = [(group, (len(group), 32)) for group in workload.groups(1)]
    if workload.mixed:
        groups = list(batches([len(source) for source in workload.sources], tokens))
    limits: dict[int, int] = {}  # by source length, as in a translator
    for rows, (_, length) in groups:
        limits[length] = max(limits.get(length, 0), *(workload.lengths[row] for row in rows))
    sizes = PaddedSizes(0, 0, 0)
    for rows, (count, length) in groups:
        segments = [
            Segment(row, 0, "", workload.sources[row], [], [], limit=workload.lengths[row], seed=0)
            for row in rows
        ]
        batch = jax.tree.map(jnp.asarray, make_search_batch(segments, count, length, sizes, vocab))
        yield batch, limits[length]


def _gflop(c: TransformerConfig, workload: Workload) -> float:
    """GFLOP of the matrix products for all outputs, two operations per multiplication."""
    attention, forward = 4 * c.d_model**2, 2 * c.d_model * c.d_ff
    step = c.decoder_layers * (attention * 3 // 2 + forward) + c.d_model * c.vocab_size
    source = c.encoder_layers * (attention + forward) + c.decoder_layers * attention // 2
    source_tokens = sum(map(len, workload.sources))
    return 2e-9 * (workload.tokens * workload.beam_size * step + source_tokens * source)


def machine_gflops(precision: str) -> float:
    """GFLOP/s of one large compiled matrix product in this precision."""
    dtype = "float32" if precision == "float32" else "bfloat16"
    x, y = jnp.ones((1024, 2048), dtype), jnp.ones((2048, 2048), dtype)
    dot = partial(jnp.dot, preferred_element_type=jnp.float32)
    product = xla_options.jit(dot, precision, jax.default_backend())
    jax.block_until_ready(product(x, y))
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready(product(x, y))
        seconds.append(time.perf_counter() - start)
    return 2e-9 * 1024 * 2048 * 2048 / statistics.median(seconds)
