"""What a training would need, without training: memory by its own compiled step, shapes, tokens."""

import jax
import numpy as np

from data.batch import Batch
from data.buckets import Bucket
from experiments.course import Training
from model.sharding import batch_sharding, batch_shards
from train.state import abstract_state
from train.step import compile_train_step


def describe(t: Training) -> dict:
    """What `--dry_run` prints; allocates nothing on the devices.

    `activations` is the temporary memory of the compiled step, gradients included, of the batch
    shape that needs most. Bytes are those of one device.
    """
    c = t.experiment
    state = abstract_state(t.model, t.tx, t.mesh, ema=c.train.ema > 0)
    multiple = batch_shards(t.mesh) * c.optimizer.accumulate
    plan = t.text.plan
    shapes = [b._replace(rows=-(-b.rows // multiple) * multiple) for b in plan.buckets]
    extremes = {max(shapes), max(shapes, key=lambda b: (b.source + b.target, b.rows))}
    memory = {
        "parameters": _bytes(state.params),
        "optimizer": _bytes(state.opt_state),
        "average": _bytes(state.ema),
        "activations": max(_temporary(t, state, shape) for shape in extremes),
    }
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "mesh": dict(t.mesh.shape),
        "bytes_per_device": memory | {"all": sum(memory.values())},
        "batches": [shape._asdict() for shape in shapes],
        "compilations": len(shapes),
        "tokens_per_step": round(plan.tokens / plan.batches_per_epoch, 1),
        "steps_per_epoch": plan.batches_per_epoch,
        "padding": round(plan.padding, 4),
    }


def _temporary(t: Training, state, shape: Bucket) -> int:
    """The compiled step's temporary memory on one device for batches of this shape."""
    c = t.experiment
    step = compile_train_step(
        t.model,
        t.tx,
        t.mesh,
        smoothing=c.train.label_smoothing,
        accumulate=c.optimizer.accumulate,
        ema_decay=c.train.ema,
    )
    rows = batch_sharding(t.mesh)
    batch = Batch(
        *(
            jax.ShapeDtypeStruct((shape.rows, length), np.int32, sharding=rows)
            for length in (shape.source, shape.target)
        )
    )
    return step.compiled(state, batch).memory_analysis().temp_size_in_bytes


def _bytes(tree) -> int:
    """The shares of one device."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
