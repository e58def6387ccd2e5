"""Memory and estimated cycles of small programs on accelerators that are not here.

    python -m benchmarks.estimates [--write]

tests/accelerators compares the programs with the committed table, so that a change that makes a
program slower or larger is visible. `--write` renews the table for the installed compilers.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import jax
from absl import flags

from aot.report import Report
from aot.search_program import SearchProgram, report_search
from aot.targets import open_target
from aot.train_program import TrainProgram, report_training
from data.buckets import Bucket
from decode.options import SearchOptions
from experiments import cli
from experiments.console import log, print_json
from model import Transformer, TransformerConfig
from model.sharding import make_mesh
from train.optimizer import make_optimizer, make_schedule

TABLE = Path(__file__).with_name("estimates.json")
WRITE = flags.DEFINE_bool("write", False, f"Renew {TABLE.name} for the installed compilers.")
CONFIG = TransformerConfig(
    vocab_size=1024,
    encoder_layers=1,
    decoder_layers=1,
    d_model=128,
    d_ff=256,
    num_heads=2,
    dtype="bfloat16",
    attention_kernel="plain",
)
_ROWS, _LENGTH = 33, 128  # on a device: the loss has several chunks of positions


class Small(NamedTuple):
    """A small program: its target, mesh, and attention kernel or search method."""

    target: str
    mesh: dict[str, int]
    kernel: Literal["plain", "short", "splash", "cudnn"] = "plain"
    method: str = ""  # of a search; "": a train step
    grad_accum_steps: int = 1


PROGRAMS = {
    "tpu-data": Small("v5e:2x2", {"data": 4}),
    "tpu-fsdp": Small("v5e:2x2", {"fsdp": 4}),
    "tpu-tensor": Small("v5e:2x2", {"data": 2, "tensor": 2}),
    "tpu-short": Small("v5e:2x2", {"data": 4}, kernel="short"),
    "tpu-splash": Small("v5e:2x2", {"data": 4}, kernel="splash"),
    "tpu-accumulation": Small("v5e:2x2", {"data": 4}, grad_accum_steps=2),
    "tpu-beam": Small("v5e:2x2", {"data": 4}, method="beam"),
    "tpu-greedy": Small("v5e:2x2", {"data": 4}, method="greedy"),
    "gpu-data": Small("h100:2", {"data": 2}),
    "gpu-fsdp": Small("h100:2", {"fsdp": 2}),
    "gpu-tensor": Small("h100:2", {"tensor": 2}),
    "gpu-cudnn": Small("h100:2", {"data": 2}, kernel="cudnn"),
    "gpu-beam": Small("h100:2", {"data": 2}, method="beam"),
    "gpu-greedy": Small("h100:2", {"data": 2}, method="greedy"),
}


def compile_program(name: str) -> Report:
    """Compile one program of the table. Raises ConfigError if its compiler is missing."""
    small = PROGRAMS[name]
    target = open_target(small.target)
    mesh = make_mesh(**{"data": 1, **small.mesh}, devices=target.devices)
    model = Transformer(replace(CONFIG, attention_kernel=small.kernel))
    if small.method:
        options = SearchOptions(method=small.method, max_length_offset=8)
        search = SearchProgram(model, options, "bfloat16", 8 * mesh.size, 24)
        return report_search(search, target, mesh, settings={})
    schedule = make_schedule(
        "noam", learning_rate=1.0, warmup_steps=10, d_model=CONFIG.d_model, decay_steps=None
    )
    tx = make_optimizer(
        "adam", schedule, b1=0.9, b2=0.98, epsilon=1e-9, weight_decay=0.0, clip_norm=0.0,
        mu_dtype="float32",
    )  # fmt: skip
    rows = _ROWS * mesh.size
    bucket, lengths = Bucket(rows, _LENGTH, _LENGTH), [32.0] * (rows * _LENGTH // 32)
    train = TrainProgram(
        model, model, tx, bucket, True, (lengths, lengths), grad_accum_steps=small.grad_accum_steps
    )
    return report_training(train, target, mesh, settings={})


def figures(report: Report) -> dict[str, int]:
    """What the table holds of a program: temporary bytes, and a TPU's estimated cycles."""
    temporary = [size for name, size in report.memory.components.items() if "activations" in name]
    result = {"temporary_bytes": sum(temporary)}
    if report.cycles is not None:
        result["estimated_cycles"] = report.cycles.total
        passes = [sum(components.values()) for components in report.cycles.per_pass.values()]
        if passes:
            result["estimated_cycles_per_step"] = max(passes)
    return result


def compilers() -> str:
    """The version that the table is for: programs depend on jax and its compilers."""
    return "jax " + ".".join(jax.__version__.split(".")[:2])


def read_table() -> dict[str, dict[str, dict[str, int]]]:
    """The committed table: figures by compilers and program."""
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


def main() -> None:
    """Compile all programs, print their figures, and write the table if asked to."""
    measured = {}
    for name in PROGRAMS:
        report = compile_program(name)
        measured[name] = figures(report)
        print_json({"program": name, **measured[name], "seconds": round(report.compile_seconds, 1)})
    if WRITE.value:
        table = read_table() | {compilers(): measured}
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
        log(f"{TABLE.name}: renewed for {compilers()}")


if __name__ == "__main__":
    cli.run(main)
