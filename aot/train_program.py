"""Compile the train step for a target and report on it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from aot.compiled import report_program
from aot.memory import device_bytes
from aot.report import Report
from aot.targets import Target
from data.batch import Batch
from data.buckets import Bucket
from model.family import Trainable
from model.flops import training_flops
from model.sharding import batch_sharding, num_batch_shards
from train.state import abstract_params, abstract_state
from train.step import make_train_step

ACTIVATIONS = "activations and gradients"


class TrainProgram(NamedTuple):
    """A train step to compile: what `train.step.make_train_step` needs, and a batch's shape."""

    model: Any  # a Family with a TransformerConfig
    trainable: Trainable
    tx: optax.GradientTransformation
    bucket: Bucket
    packed: bool
    lengths: tuple[Sequence[float], Sequence[float]]  # source, target: of pairs that fill a batch
    label_smoothing: float = 0.1
    grad_accum_steps: int = 1
    ema_decay: float = 0.0
    chunked_loss: bool = True


def report_training(program: TrainProgram, target: Target, mesh: Mesh, **fields) -> Report:
    """Compile the train step; a program that needs too much memory is reported as such.

    `fields` are further ones of the report. Raises ConfigError if the mesh does not divide the
    model.
    """
    p, ema = program, program.ema_decay > 0
    bucket = p.bucket.with_rows(num_batch_shards(mesh) * p.grad_accum_steps)
    state = abstract_state(p.trainable, p.tx, mesh, ema=ema)
    batch = _abstract_batch(bucket, p.packed, mesh)
    step = make_train_step(
        p.trainable,
        p.tx,
        mesh,
        label_smoothing=p.label_smoothing,
        grad_accum_steps=p.grad_accum_steps,
        ema_decay=p.ema_decay,
        chunked=p.chunked_loss,
    )
    parts = {
        "parameters": device_bytes((state.params, state.base)),
        "optimizer": device_bytes(state.opt_state),
        "moving average": device_bytes(state.ema),
        "batch": device_bytes(batch),
    }
    return report_program(
        lambda: step.lower_and_compile(state, batch),
        target,
        mesh,
        parts,
        ACTIVATIONS,
        what="train",
        shape=bucket._asdict(),
        num_params=sum(x.size for x in jax.tree.leaves(abstract_params(p.model, mesh))),
        useful_flops=training_flops(p.model.config, *map(np.asarray, p.lengths)) / mesh.size,
        tokens=int(sum(map(sum, p.lengths))),
        **fields,
    )


def _abstract_batch(bucket: Bucket, packed: bool, mesh: Mesh) -> Batch:
    rows = batch_sharding(mesh)
    lengths = (bucket.source, bucket.target) * (1 + packed)
    return Batch(
        *(jax.ShapeDtypeStruct((bucket.rows, n), np.int32, sharding=rows) for n in lengths)
    )
