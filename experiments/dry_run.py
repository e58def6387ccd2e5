"""Dry run: memory, batch shapes and tokens of a training, without running it."""

import jax
import numpy as np

from data.batch import Batch
from data.buckets import Bucket
from decode.families import make_generator
from decode.sharded_weights import abstract_weights
from experiments.console import progress_bar
from experiments.run_context import RunContext
from model.sharding import batch_sharding
from train.state import abstract_params


def estimate_resources(run: RunContext) -> dict:
    """Estimate the resources that `--dry_run` prints; allocates nothing on the devices.

    `num_trainable_params` counts the parameters that training changes: adapters, or all. With
    adapters, `bytes_per_device` includes the base in the parameters.

    `activations` is the temporary memory of the compiled step, with gradients, for the largest
    batch shape; `search` is the copy of the parameters for BLEU, which never coexists with
    activations. All bytes are per device.
    """
    state, step, sizes = run.abstract_state(), run.make_train_step(), run.param_counts()
    params = abstract_params(run.model, run.mesh)
    schedule = run.data.schedule
    shapes = [bucket.with_rows(run.row_multiple) for bucket in schedule.buckets]
    extremes = {max(shapes), max(shapes, key=lambda b: (b.source + b.target, b.rows))}
    with progress_bar("compiling", len(extremes)) as progress:
        activations = []
        for shape in extremes:
            activations.append(_temporary(run, step, state, shape, schedule[0].packed))
            progress(1)
    memory = {
        "params": _bytes((state.params, state.base)),
        "optimizer": _bytes(state.opt_state),
        "ema": _bytes(state.ema),
        "activations": max(activations),
        "search": _bytes(abstract_weights(make_generator(run.model.config), params, run.mesh)),
    }
    needed = sum(memory.values()) - min(memory["activations"], memory["search"])
    return {
        **sizes,
        "mesh": dict(run.mesh.shape),
        "bytes_per_device": memory | {"total": needed},
        "batches": [shape._asdict() for shape in shapes],
        "compilations": len(shapes),
        "tokens_per_step": round(schedule.tokens / schedule.batches_per_epoch, 1),
        "steps_per_epoch": schedule.batches_per_epoch,
        "padding_fraction": round(schedule.padding, 4),
    }


def _temporary(run: RunContext, step, state, shape: Bucket, packed: bool) -> int:
    """The compiled step's temporary memory on one device for batches of this shape."""
    rows = batch_sharding(run.mesh)
    batch = Batch(
        *(
            jax.ShapeDtypeStruct((shape.rows, length), np.int32, sharding=rows)
            for length in (shape.source, shape.target) * (1 + packed)
        )
    )
    return step.lower_and_compile(state, batch).memory_analysis().temp_size_in_bytes


def _bytes(tree) -> int:
    """Bytes per device."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
