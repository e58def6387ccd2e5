"""Heed's train step and pipeline as a system of benchmarks/train.py."""

import itertools
import time
from dataclasses import replace
from typing import Literal

import jax
import numpy as np

from benchmarks.train_workloads import LEARNING_RATE, SMOOTHING, STEP_TOKENS, Workload
from data.batch_schedule import BatchSchedule
from data.pipeline import train_batches
from model import Transformer
from model.flops import training_flops
from model.sharding import make_mesh
from train.optimizer import make_optimizer, make_schedule
from train.state import create_state
from train.step import make_train_step


def _input_speed(workload: Workload, schedule: BatchSchedule, batches: int = 200) -> float:
    """Real tokens per second of the input pipeline alone."""
    stream = train_batches(workload.pairs, schedule)
    next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * schedule.tokens / schedule.batches_per_epoch / (time.perf_counter() - start)


def make(
    workload: Workload, precision: Literal["float32", "bfloat16"], packed: bool, chunked: bool
):
    """Return a function that does a round of updates, and fields of its JSON line."""
    source, target = workload.pairs.lengths
    indices = np.arange(len(source))
    tokens = min(STEP_TOKENS, int(target.sum()))
    schedule = BatchSchedule(
        workload.pairs, indices, 0, count=6, packed=packed, tokens_per_batch=tokens
    )
    model = Transformer(replace(workload.config, dtype=precision))
    learning_rate = make_schedule("constant", learning_rate=LEARNING_RATE, warmup_steps=1)
    tx, mesh = make_optimizer("adam", learning_rate), make_mesh(devices=jax.devices()[:1])
    step = make_train_step(model, tx, mesh, label_smoothing=SMOOTHING, chunked=chunked)
    state = create_state(model, tx, jax.random.key(0), mesh)
    batches = train_batches(workload.pairs, schedule)
    start = time.perf_counter()
    for bucket in schedule.buckets:  # compile all shapes before the measurement
        index = next(i for i in itertools.count() if schedule[i].bucket == bucket)
        state, _ = step(state, next(iter(train_batches(workload.pairs, schedule, index))))

    def run() -> int:
        nonlocal state
        all_metrics = []
        for batch in itertools.islice(batches, workload.steps):
            state, metrics = step(state, batch)
            all_metrics.append(metrics)
        return int(sum(float(m.tokens + m.source_tokens) for m in jax.device_get(all_metrics)))

    jax.block_until_ready(state)
    compile_seconds = time.perf_counter() - start
    real_tokens = int(source.sum() + target.sum())
    fields = dict(
        compile_s=round(compile_seconds, 1),
        input_tokens_per_second=round(_input_speed(workload, schedule)),
        padding_fraction=round(schedule.padding, 4),
        compilations=len(step.traced_shapes),
        gflop_per_token=1e-9 * training_flops(workload.config, source, target) / real_tokens,
    )
    return run, fields
