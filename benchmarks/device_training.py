"""The train step of benchmarks.device: tokens per second, utilisation, memory."""

import time
from dataclasses import replace
from typing import Literal

import jax
import numpy as np

from aot.memory import device_bytes
from benchmarks.device_rates import median_seconds
from data.batch import Batch
from model import Transformer, TransformerConfig
from model.attention_kernels import choose_kernel
from model.config import BASE, BIG
from model.flops import training_flops
from model.platform import device_platform
from model.sharding import make_mesh
from train.optimizer import make_optimizer, make_schedule
from train.state import abstract_state, create_state
from train.step import make_train_step

LENGTH, PAIR = 128, 32  # positions of a packed row; tokens of each sentence in it


def train_config(size: str, small: bool) -> TransformerConfig:
    """The config of "base" or "big" in bfloat16; small: one narrow layer of each kind."""
    config = replace(BASE if size == "base" else BIG, dtype="bfloat16")
    if not small:
        return config
    config = replace(config, encoder_layers=1, decoder_layers=1, num_heads=1)
    return replace(config, vocab_size=256, d_model=64, d_ff=128)


def packed_batch(rows: int, vocab_size: int) -> Batch:
    """Random full rows of `LENGTH` positions, of sentences of `PAIR` tokens."""
    ids = np.random.default_rng(0).integers(4, vocab_size, (rows, LENGTH)).astype(np.int32)
    segments = np.broadcast_to(np.arange(LENGTH, dtype=np.int32) // PAIR + 1, ids.shape).copy()
    return Batch(ids, ids, segments, segments)


def measure_training(
    size: str, kernel: Literal["auto", "plain"], *, small: bool, rounds: int, rates: dict
) -> dict:
    """Measure train steps on one device, with 24,576 positions per side."""
    device = jax.devices()[0]
    config = replace(train_config(size, small), attention_kernel=kernel)
    rows = 4 if small else 24_576 // LENGTH
    model, mesh = Transformer(config), make_mesh(devices=[device])
    tx = make_optimizer("adam", make_schedule("constant", learning_rate=1e-4, warmup_steps=1))
    step = make_train_step(model, tx, mesh, label_smoothing=0.1)
    batch = jax.tree.map(jax.numpy.asarray, packed_batch(rows, config.vocab_size))
    start = time.perf_counter()
    compiled = step.lower_and_compile(abstract_state(model, tx, mesh), batch)
    compile_seconds = time.perf_counter() - start
    state = create_state(model, tx, jax.random.key(0), mesh)

    def run():
        nonlocal state
        state, metrics = step(state, batch)
        return metrics

    seconds = median_seconds(run, rounds)
    lengths = np.full(rows * (LENGTH // PAIR), PAIR)
    stats = device.memory_stats() or {}
    analysis = compiled.memory_analysis()
    temporary = 0 if analysis is None else analysis.temp_size_in_bytes
    return {
        "kernel": choose_kernel(config, device_platform(device))[0],
        "tokens_per_second": round(2 * rows * LENGTH / seconds),
        "utilisation": round(
            training_flops(config, lengths, lengths) / seconds / rates["matmul_flops"], 3
        ),
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "aot_bytes": temporary + device_bytes(abstract_state(model, tx, mesh)),
        "step_seconds": seconds,
        "compile_seconds": round(compile_seconds, 1),
    }
