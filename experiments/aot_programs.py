"""The programs of an experiment for ahead-of-time compilation: train step and search."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from aot.search_program import SearchProgram
from aot.targets import Target
from aot.train_program import TrainProgram
from data.batch_schedule import BatchSchedule
from data.buckets import Bucket, rows_per_batch
from experiments.config import Experiment
from experiments.lora import trainable
from experiments.resolve import check_sizes, find_vocabulary, inherit_model_config, resolve
from experiments.setup import schedule_and_optimizer
from experiments.translation_task import TranslationTask
from model import ConfigError
from model.families import build_model
from model.sharding import make_mesh

# Mean length of a sentence in WMT 2014 English-German in subwords, both sides alike. Without text
# it decides how much attention counts as useful, a few percent of a step's FLOPs.
MEAN_LENGTH = 32


def parse_mesh(text: str, target: Target) -> Mesh:
    """Make a mesh of the target's devices from "fsdp=4,tensor=2". Raises ConfigError."""
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition("=")
        if axis.strip() not in ("data", "fsdp", "tensor") or not size.strip().isdecimal():
            raise ConfigError(
                f"--mesh={text}: {part!r} is not like fsdp=4; the axes are data, fsdp and tensor"
            )
        sizes[axis.strip()] = int(size)
    return make_mesh(**{"data": -1, **sizes}, devices=target.devices)


def experiment_without_text(experiment: Experiment) -> Experiment:
    """The experiment with the vocabulary size of its config, as `resolve` returns it."""
    check_sizes(experiment)
    experiment = inherit_model_config(experiment, None)
    data = experiment.data
    target = None if data.shared_vocab else data.vocab_size
    if target and experiment.model.tying == "all":
        raise ConfigError(
            "data.shared_vocab=False needs model.tying=decoder or none: two vocabularies"
        )
    if experiment.init_from:
        return experiment
    model = replace(experiment.model, vocab_size=data.vocab_size, target_vocab_size=target)
    return replace(experiment, model=model)


def text_is_here(experiment: Experiment) -> bool:
    """Whether the text can be read without a download."""
    data = experiment.data
    return data.kind == "demo" or bool(data.path and Path(data.path).exists())


def read_schedule(experiment: Experiment) -> tuple[Experiment, BatchSchedule, Any]:
    """Read the text: the resolved experiment, the batch schedule, and the training pairs."""
    task = TranslationTask()
    experiment = inherit_model_config(experiment, None)
    splits = task.open_splits(experiment)
    vocabulary = find_vocabulary(experiment, None, splits["train"])
    experiment = resolve(experiment, vocabulary)
    data = task.read(experiment, splits, vocabulary, lambda: None)
    return experiment, data.schedule, data.pairs["train"]


def training_program(experiment: Experiment, bucket: Bucket, lengths) -> TrainProgram:
    """The train step of an experiment for one batch shape, of pairs with these lengths."""
    c = experiment
    model = build_model(c.model)
    _, tx = schedule_and_optimizer(c)
    return TrainProgram(
        model,
        trainable(c, model),
        tx,
        bucket,
        c.data.packing,
        lengths,
        c.train.label_smoothing,
        c.optimizer.grad_accum_steps,
        c.train.ema_decay,
        c.train.chunked_loss,
    )


def config_batch(experiment: Experiment) -> tuple[Bucket, tuple[Sequence[float], Sequence[float]]]:
    """The largest batch that the config allows: full rows of `data.max_length` positions.

    Its pairs have `MEAN_LENGTH` tokens a side if rows are packed, else they fill a row.
    """
    data, length = experiment.data, experiment.data.max_length
    rows = rows_per_batch(
        1 << 40, length, data.tokens_per_batch, experiment.optimizer.grad_accum_steps
    )
    pair = min(MEAN_LENGTH, length) if data.packing else length
    lengths = [float(pair)] * (rows * (length // pair))
    return Bucket(rows, length, length), (lengths, lengths)


def text_batch(schedule: BatchSchedule, pairs) -> tuple[Bucket, tuple[np.ndarray, np.ndarray]]:
    """The first full batch of the schedule's largest shape, and the lengths of its pairs."""
    largest = max(schedule.buckets, key=lambda b: b.rows * (b.source + b.target))
    specs = (schedule[step] for step in range(schedule.batches_per_epoch))
    spec = max((s for s in specs if s.bucket == largest), key=lambda s: len(s.pairs))
    source, target = (side[spec.pairs] for side in pairs.lengths)
    return largest, (source, target)


def search_program(
    experiment: Experiment, precision: str, sentences: int, source_length: int
) -> SearchProgram:
    """The search of an experiment's settings."""
    model = build_model(experiment.model)
    return SearchProgram(model, experiment.search.options(), precision, sentences, source_length)
