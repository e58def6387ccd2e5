"""T3 of benchmarks/train.py: the complete training command compared with bare train steps.

The command trains the base model on real text for some steps; its start-up time is reported as
well. The cost of the loop is measured in one process: blocks of steps in the loop and of bare steps
alternate, on the same batches. The input speed is that from text files to batches, without a cache.
"""

import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jax

from benchmarks.heed_system import machine_gflops
from data.batch import Batch
from data.pairs import SPLITS
from data.pipeline import TokenPairs, train_batches
from data.text import read_lines
from experiments.config import Experiment
from experiments.config_io import to_experiment
from experiments.configs import text
from experiments.run_context import RunContext
from experiments.setup import set_up
from experiments.translation_data import TranslationData, open_split, read_pairs
from model.flops import training_flops
from train.loop import fit
from train.loss_monitor import LossMonitor
from train.metrics import MetricsWriter, read_metrics
from train.state import TrainState, create_state

_TOKENS = 512  # per batch and side: 300 steps of a base model then finish on a few cores
_BLOCK = 15  # steps per measured block
_NUM_EVAL_PAIRS = 8  # pairs for validation and test, which are not measured


def measure(data: str, languages: tuple[str, str], steps: int, precision: str) -> dict:
    """The T3-specific fields of the JSON line, measured on `data`/train.{language}."""
    with tempfile.TemporaryDirectory() as folder:
        path = _text(Path(data), languages, Path(folder))
        values = _values(path, languages, steps, precision)
        result = _command(values, Path(folder) / "run")
        run = set_up(_experiment(values), Path(folder) / "no")
        result["text_tokens_per_second"] = round(_input_speed(run))
        start = time.perf_counter()
        step, state = _compile(run)
        result["compile_s"] = round(time.perf_counter() - start, 1)
        result["gflops"] = round(_gflop_per_token(run) * result["tokens_per_second"], 1)
        result["mfu"] = round(result["gflops"] / machine_gflops(precision), 3)
        costs = list(_loop_costs(run, step, state, steps))
    return result | dict(steps=steps, loop_cost=round(statistics.median(costs), 4))


def _text(data: Path, languages: tuple[str, str], folder: Path) -> str:
    """Value of data.path: the training text, and its first lines as valid and test splits."""
    files = [data / f"train.{language}" for language in languages]
    eval_files = [folder / f"eval.{language}" for language in languages]
    for file, eval_file in zip(files, eval_files, strict=True):
        eval_file.write_text(
            "".join(f"{line}\n" for line in read_lines(file)[:_NUM_EVAL_PAIRS]), "utf-8"
        )
    eval_paths = ",".join(map(str, eval_files))
    return f"train={','.join(map(str, files))};valid={eval_paths};test={eval_paths}"


def _values(path: str, languages: tuple[str, str], steps: int, precision: str) -> dict:
    return {
        "data.path": path,
        "data.source_language": languages[0],
        "data.target_language": languages[1],
        "data.vocab_size": 32_000,
        "data.tokens_per_batch": _TOKENS,
        "data.max_length": 128,
        "model.dtype": precision,
        "train.num_steps": steps,
        "train.eval_every": steps + 1,
        "train.checkpoint_every": steps + 1,
        "search.beam_size": 1,
    }


def _experiment(values: dict) -> Experiment:
    config = text.get_config()
    for name, value in values.items():
        group, name = name.split(".")
        config[group][name] = value
    return to_experiment(config)


def _command(values: dict, workdir: Path) -> dict:
    """Run experiments.train; return its speed and its start-up time."""
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}"]
    start = time.time()
    out = subprocess.run(
        [*command, "--config=experiments/configs/text.py", *flags],
        stdout=subprocess.PIPE, env=os.environ | {"JAX_PLATFORMS": "cpu"}, text=True, check=True,
    ).stdout  # fmt: skip
    seconds = time.time() - start
    events = [event for event in read_metrics(workdir) if event["event"] == "train"]
    summary = json.loads(out)
    return dict(
        tokens_per_second=round(statistics.median(e["tokens_per_second"] for e in events), 1),
        padding_fraction=round(statistics.mean(e["padding_fraction"] for e in events), 4),
        startup_s=round(seconds - summary["elapsed_seconds"], 1),
        peak_mb=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    )


def _train_pairs(run: RunContext) -> TokenPairs:
    assert isinstance(run.data, TranslationData)
    return run.data.pairs["train"]


def _gflop_per_token(run: RunContext) -> float:
    source, target = _train_pairs(run).lengths
    tokens = float(source.sum() + target.sum())
    return 1e-9 * training_flops(run.model.config, source, target) / tokens


def _input_speed(run: RunContext, batches: int = 200) -> float:
    """Real tokens per second from text files: read, tokenize, schedule, make batches."""
    c = replace(run.experiment, data=replace(run.experiment.data, cache=False))
    start = time.perf_counter()
    splits = {split: open_split(c, split) for split in SPLITS}
    text = read_pairs(c, splits, run.vocabulary)
    read_seconds = (time.perf_counter() - start) / text.schedule.tokens
    start = time.perf_counter()
    for _ in itertools.islice(train_batches(text.pairs["train"], text.schedule), batches):
        pass
    batch_seconds = (time.perf_counter() - start) / batches
    return 1 / (
        read_seconds + batch_seconds * text.schedule.batches_per_epoch / text.schedule.tokens
    )


def _batches(run: RunContext, first_step: int, count: int) -> Iterator[Batch]:
    schedule, multiple = run.data.schedule, run.row_multiple
    batches = train_batches(_train_pairs(run), schedule, first_step, multiple_of=multiple)
    return itertools.islice(batches, count)


def _compile(run: RunContext) -> tuple[Callable, TrainState]:
    """The train step, run once in each batch shape, and the state afterwards."""
    state, step = (
        create_state(run.model, run.tx, jax.random.key(0), run.mesh),
        run.make_train_step(),
    )
    for bucket in run.data.schedule.buckets:
        index = next(i for i in itertools.count() if run.data.schedule[i].bucket == bucket)
        (batch,) = _batches(run, index, 1)
        state, _ = step(state, batch)
    return step, jax.block_until_ready(state)


def _loop_costs(run: RunContext, step: Callable, state: TrainState, steps: int) -> Iterator[float]:
    """Relative extra time of blocks of steps in the loop over bare steps on prepared batches.

    The order of the two alternates.
    """
    c, schedule = run.experiment.train, run.data.schedule

    def run_steps(state):
        batches = list(_batches(run, int(state.step), _BLOCK))
        start = time.perf_counter()
        for batch in batches:
            state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        return state, time.perf_counter() - start

    def run_loop(state):
        start = time.perf_counter()
        first_step = int(state.step)
        state, _ = fit(
            state,
            step,
            _batches(run, first_step, _BLOCK),
            num_steps=first_step + _BLOCK,
            learning_rate=run.learning_rate,
            writer=writer,
            log_every=c.log_every,
            loss_monitor=LossMonitor(c.max_consecutive_skips, c.spike_threshold),
            example_ids_at=lambda step: schedule[step - 1].pairs,
        )
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    with MetricsWriter(run.workdir) as writer:
        for block in range(max(2, steps // (2 * _BLOCK))):
            seconds = {}
            for run_block in (run_steps, run_loop) if block % 2 else (run_loop, run_steps):
                state, seconds[run_block] = run_block(state)
            yield seconds[run_loop] / seconds[run_steps] - 1
