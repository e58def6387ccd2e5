"""T3 of benchmarks/train.py: the whole command beside bare train steps.

The command trains the base model on real text for some steps; its start is told beside. What its
loop costs is measured in one process: some steps by the loop and as many by the bare step, on the
same batches, in turn. So is how fast text files become batches, with nothing kept from before.
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
from benchmarks.train_workloads import flops
from data.batch import Batch
from data.pairs import SPLITS
from data.pipeline import TokenPairs, train_batches
from data.text import read_lines
from experiments.config import Experiment, to_experiment
from experiments.configs import text
from experiments.run_context import RunContext
from experiments.setup import set_up
from experiments.translation_data import TranslationData, open_split, read_pairs
from train.loop import fit
from train.loss_monitor import LossMonitor
from train.metrics import MetricsWriter, read_metrics
from train.state import TrainState, create_state

_TOKENS = 512  # of a batch, a side: so that 300 steps of a base model end on a few cores
_BLOCK = 15  # steps that are taken together
_HELD_OUT = 8  # pairs: what the command validates and tests by is not what is measured


def measured(data: str, languages: tuple[str, str], steps: int, precision: str) -> dict:
    """The line of T3 but for what all workloads have, from `data`/train.{language}."""
    with tempfile.TemporaryDirectory() as folder:
        path = _text(Path(data), languages, Path(folder))
        values = _values(path, languages, steps, precision)
        told = _command(values, Path(folder) / "run")
        t = set_up(_experiment(values), Path(folder) / "no")
        told["text_tokens_per_s"] = round(_delivered(t))
        begun = time.perf_counter()
        step, state = _compiled(t)
        told["compile_s"] = round(time.perf_counter() - begun, 1)
        told["gflops"] = round(_gflop_a_token(t) * told["tokens_per_second"], 1)
        told["mfu"] = round(told["gflops"] / machine_gflops(precision), 3)
        costs = list(_costs(t, step, state, steps))
    return told | dict(steps=steps, loop_cost=round(statistics.median(costs), 4))


def _text(data: Path, languages: tuple[str, str], folder: Path) -> str:
    """data.path: all of the training text, and a few lines of it to validate and to test by."""
    files = [data / f"train.{language}" for language in languages]
    held_out = [folder / f"held_out.{language}" for language in languages]
    for file, some in zip(files, held_out, strict=True):
        some.write_text("".join(f"{line}\n" for line in read_lines(file)[:_HELD_OUT]), "utf-8")
    few = ",".join(map(str, held_out))
    return f"train={','.join(map(str, files))};valid={few};test={few}"


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
    """Runs experiments.train; its speed, and the seconds before it began to train."""
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}"]
    begun = time.time()
    out = subprocess.run(
        [*command, "--config=experiments/configs/text.py", *flags],
        stdout=subprocess.PIPE, env=os.environ | {"JAX_PLATFORMS": "cpu"}, text=True, check=True,
    ).stdout  # fmt: skip
    seconds = time.time() - begun
    events = [event for event in read_metrics(workdir) if event["split"] == "train"]
    last = json.loads(out)
    return dict(
        tokens_per_second=round(statistics.median(e["tokens_per_second"] for e in events), 1),
        padding=round(statistics.mean(e["padding_fraction"] for e in events), 4),
        startup_s=round(seconds - last["seconds"], 1),
        peak_mb=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    )


def _train_pairs(run: RunContext) -> TokenPairs:
    assert isinstance(run.data, TranslationData)
    return run.data.pairs["train"]


def _gflop_a_token(run: RunContext) -> float:
    source, target = _train_pairs(run).lengths
    return 1e-9 * flops(run.model.config, source, target) / float(source.sum() + target.sum())


def _delivered(run: RunContext, batches: int = 200) -> float:
    """Real tokens a second from text files: read, tokenised, planned and made into batches."""
    c = replace(run.experiment, data=replace(run.experiment.data, cache=False))
    begun = time.perf_counter()
    splits = {split: open_split(c, split) for split in SPLITS}
    text = read_pairs(c, splits, run.vocabulary)
    read = (time.perf_counter() - begun) / text.schedule.tokens
    begun = time.perf_counter()
    for _ in itertools.islice(train_batches(text.pairs["train"], text.schedule), batches):
        pass
    made = (time.perf_counter() - begun) / batches
    return 1 / (read + made * text.schedule.batches_per_epoch / text.schedule.tokens)


def _batches(run: RunContext, first: int, count: int) -> Iterator[Batch]:
    schedule, multiple = run.data.schedule, run.row_multiple
    made = train_batches(_train_pairs(run), schedule, first, multiple_of=multiple)
    return itertools.islice(made, count)


def _compiled(run: RunContext) -> tuple[Callable, TrainState]:
    """The step, run once in all its shapes, and the state after that."""
    state, step = create_state(run.model, run.tx, jax.random.key(0), run.mesh), run.compile_step()
    for bucket in run.data.schedule.buckets:
        first = next(i for i in itertools.count() if run.data.schedule[i].bucket == bucket)
        (batch,) = _batches(run, first, 1)
        state, _ = step(state, batch)
    return step, jax.block_until_ready(state)


def _costs(run: RunContext, step: Callable, state: TrainState, steps: int) -> Iterator[float]:
    """How much longer blocks of steps take in the loop than bare, on batches made before, less 1.

    Whichever of the two comes first, the other does in the next block.
    """
    c, plan = run.experiment.train, run.data.schedule

    def bare(state):
        ready = list(_batches(run, int(state.step), _BLOCK))
        begun = time.perf_counter()
        for batch in ready:
            state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        return state, time.perf_counter() - begun

    def looped(state):
        begun = time.perf_counter()
        first = int(state.step)
        state, _ = fit(
            state,
            step,
            _batches(run, first, _BLOCK),
            num_steps=first + _BLOCK,
            schedule=run.schedule,
            writer=writer,
            log_every=c.log_every,
            loss_monitor=LossMonitor(c.max_consecutive_skips, c.spike_threshold),
            example_ids_at=lambda step: plan[step - 1].pairs,
        )
        jax.block_until_ready(state)
        return state, time.perf_counter() - begun

    with MetricsWriter(run.workdir) as writer:
        for block in range(max(2, steps // (2 * _BLOCK))):
            spent = {}
            for way in (bare, looped) if block % 2 else (looped, bare):
                state, spent[way] = way(state)
            yield spent[looped] / spent[bare] - 1
