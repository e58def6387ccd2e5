"""Compile models for TPU slices and GPU hosts, and write the table of docs/pods.md.

    python -m benchmarks.meshes [--only=t5:xl] [--write]

Each row is one compilation of `experiments.compile`, which takes minutes for the largest. Results
are added to benchmarks/meshes.json, from which `--write` renews the table.
"""

import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from aot.fit import describe
from aot.targets import GIB, open_target
from experiments import cli
from experiments.console import log, print_json
from model import ConfigError

ONLY = flags.DEFINE_string("only", "", "Compile rows that contain this text, such as t5:xl or v5e.")
WRITE = flags.DEFINE_bool("write", False, "Renew the table in docs/pods.md.")
RESULTS = Path(__file__).with_name("meshes.json")
PAGE = Path(__file__).parent.parent / "docs" / "pods.md"
_TABLE = re.compile(r"(<!-- meshes -->\n).*?(<!-- /meshes -->)", re.DOTALL)


class Row(NamedTuple):
    """A model on a target: positions per side and device, and the mesh."""

    config: str
    target: str
    mesh: str
    positions: int

    @property
    def key(self) -> str:
        return f"{self.config} {self.target} {self.mesh}"


_TARGETS = ("v5e:4x4", "v5e:16x16", "v5p:4x4x4", "h100:8", "h100:8x8")
ROWS = [
    *(Row("wmt14_en_de_base", target, "", 16_384) for target in _TARGETS),
    *(Row("wmt14_en_de_big", target, "", 8_192) for target in _TARGETS),
    *(Row("t5:large", target, "fsdp=8", 8_192) for target in _TARGETS),
    Row("t5:xl", "v5e:4x4", "fsdp=16", 4_096),
    Row("t5:xl", "v5e:16x16", "fsdp=16", 4_096),
    Row("t5:xl", "v5p:4x4x4", "fsdp=8", 8_192),
    Row("t5:xl", "h100:8", "fsdp=8", 8_192),
    Row("t5:xl", "h100:8x8", "fsdp=8", 8_192),
    Row("t5:xxl", "v5e:4x4", "fsdp=16", 1_024),
    Row("t5:xxl", "v5e:16x16", "fsdp=256", 1_024),
    Row("t5:xxl", "v5p:4x4x4", "fsdp=64", 4_096),
    Row("t5:xxl", "h100:8", "fsdp=8", 1_024),
    Row("t5:xxl", "h100:8x8", "fsdp=64", 4_096),
]


def compile_row(row: Row) -> dict[str, Any]:
    """Compile one row in bfloat16, with rows of 128 positions."""
    from experiments.aot_run import train_reports
    from experiments.config_io import to_experiment

    name, _, argument = row.config.partition(":")
    config = import_module(f"experiments.configs.{name}").get_config(*filter(None, [argument]))
    experiment = to_experiment(config)
    target = open_target(row.target)
    experiment = replace(
        experiment,
        model=replace(experiment.model, dtype="bfloat16"),
        data=replace(
            experiment.data, max_length=128, tokens_per_batch=row.positions * target.count
        ),
    )
    (report,) = train_reports(experiment, target, [row.mesh], "config")
    return {
        "config": row.config,
        "target": row.target,
        "devices": target.count,
        "mesh": describe(report.mesh),
        "params": report.num_params,
        "tokens_per_device": 2 * row.positions,
        "gib": round(report.memory.total / GIB, 2),
        "capacity_gib": round(report.memory.capacity / GIB, 2),
        "collective_mb": round(sum(c.bytes for c in report.collectives) / 1e6),
        "estimated_utilisation": report.utilisation and round(report.utilisation, 2),
        "compile_seconds": round(report.compile_seconds),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as a Markdown table, in the order of `ROWS`."""
    lines = [
        "| config | parameters | target | devices | mesh | tokens per device | GiB of a device, "
        "of its capacity | headroom | MB of collectives | utilisation, compiler estimate |",
        "|---|---:|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for result in (results[row.key] for row in ROWS if row.key in results):
        headroom = result["capacity_gib"] - result["gib"]
        fits = f"{headroom:.1f}" if headroom >= 0 else "does not fit"
        lines.append(
            f"| {result['config']} | {result['params'] / 1e6:,.0f}M | {result['target']} | "
            f"{result['devices']} | {result['mesh']} | {result['tokens_per_device']:,} | "
            f"{result['gib']} of {result['capacity_gib']} | {fits} | "
            f"{result['collective_mb']:,} | {result['estimated_utilisation'] or '–'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compile the rows that the flags select, and write the table if asked to."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for row in ROWS:
        if not ONLY.value or ONLY.value not in row.key:
            continue
        try:
            results[row.key] = compile_row(row)
        except ConfigError as error:
            log(f"skipped {row.key}: {error}")
            continue
        print_json(results[row.key])
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if WRITE.value:
        text = PAGE.read_text(encoding="utf-8")
        renewed = _TABLE.sub(lambda m: m[1] + table(results) + m[2], text)
        PAGE.write_text(renewed, encoding="utf-8")
        log(f"{PAGE.name}: {len(results)} rows")


if __name__ == "__main__":
    cli.run(main)
