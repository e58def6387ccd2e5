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
from decode.inputs import PaddedSizes, Segment, make_search_batch
from decode.options import SearchOptions
from decode.search import search
from decode.weights import pack
from model import Transformer, TransformerConfig


def parameters(config: TransformerConfig):
    """Random parameters for all systems, drawn leaf by leaf, which takes far less memory."""
    ids, random = jnp.ones((1, 2), jnp.int32), np.random.default_rng(0)
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), ids, ids)

    def drawn(path, leaf):
        if path[-1].key in ("scale", "bias"):
            return jnp.full(leaf.shape, path[-1].key == "scale", jnp.float32)
        noise = random.standard_normal(leaf.shape, np.float32)
        noise *= config.d_model**-0.5
        return jnp.asarray(noise)

    return jax.tree_util.tree_map_with_path(drawn, nn.unbox(shapes)["params"])


def make(config: TransformerConfig, work: Workload, precision: str, cores: int, tokens: int):
    """Return a function that translates the workload once, and fields of its JSON line."""
    weights = jax.jit(partial(pack, config, precision=precision))(parameters(config))
    jax.block_until_ready(weights)
    method = dict(beam_size=work.beam_size) if work.beam_size > 1 else dict(method="greedy")
    max_length = max(work.lengths)
    options = SearchOptions(min_length=max_length, **method)  # each output ends at its own limit
    find = xla_options.jit(
        lambda weights, batch, room: search(
            [make_generator(config)], [weights], batch, options=options, max_length=room
        ),
        precision,
        static_argnames="room",
    )
    jobs = list(_jobs(work, tokens, config.target_vocab))

    def run():
        for batch, room in jobs:
            jax.block_until_ready(find(weights, batch, room=room))

    shapes = {(batch.src.shape, room) for batch, room in jobs}
    facts = dict(compilations=len(shapes), gflop_a_token=_gflop(config, work) / work.tokens)
    return run, facts | {"machine_gflops": round(machine_gflops(precision), 1)}


def _jobs(work: Workload, tokens: int, vocab: int):
    groups = [(group, (len(group), 32)) for group in work.groups(1)]
    if work.mixed:
        groups = list(batches([len(source) for source in work.sources], tokens))
    limits: dict[int, int] = {}  # by source length: as few compilations as a translator's
    for rows, (_, length) in groups:
        limits[length] = max(limits.get(length, 0), *(work.lengths[row] for row in rows))
    nothing = PaddedSizes(0, 0, 0)
    for rows, (count, length) in groups:
        segments = [
            Segment(row, 0, "", work.sources[row], [], [], limit=work.lengths[row], seed=0)
            for row in rows
        ]
        batch = jax.tree.map(
            jnp.asarray, make_search_batch(segments, count, length, nothing, vocab)
        )
        yield batch, limits[length]


def _gflop(c: TransformerConfig, work: Workload) -> float:
    """GFLOP of the matrix products for all outputs, two operations per multiplication."""
    attention, forward = 4 * c.d_model**2, 2 * c.d_model * c.d_ff
    step = c.decoder_layers * (attention * 3 // 2 + forward) + c.d_model * c.vocab_size
    source = c.encoder_layers * (attention + forward) + c.decoder_layers * attention // 2
    read = sum(map(len, work.sources))
    return 2e-9 * (work.tokens * work.beam_size * step + read * source)


def machine_gflops(precision: str) -> float:
    """GFLOP/s of one large compiled matrix product in this precision."""
    dtype = "float32" if precision == "float32" else "bfloat16"
    x, y = jnp.ones((1024, 2048), dtype), jnp.ones((2048, 2048), dtype)
    product = xla_options.jit(partial(jnp.dot, preferred_element_type=jnp.float32), precision)
    jax.block_until_ready(product(x, y))
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready(product(x, y))
        seconds.append(time.perf_counter() - start)
    return 2e-9 * 1024 * 2048 * 2048 / statistics.median(seconds)
