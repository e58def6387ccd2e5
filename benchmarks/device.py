"""Training and decoding on the accelerator of this machine, in at most ten minutes.

    python -m benchmarks.device > device.jsonl

Measures the device's matrix products and memory copies, then in bfloat16 the train steps of the
base and the big model with plain and fused attention, searches W1 and W2 at batches of 64 to 1,024
sentences, and PyTorch's nn.Transformer where it is installed. Prints JSON lines, one per
measurement, and on stderr a table for experiments/LOG.md. What there is no time for is reported as
skipped. `--small` exercises everything with a small model, for example on a CPU.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
from absl import flags

from experiments import cli
from experiments.console import log, print_json
from experiments.float_flags import define_float

MINUTES = define_float("minutes", 9.0, "Start no measurement after this time.", 0.0)
SMALL = flags.DEFINE_bool("small", False, "Small models and batches, to try the command.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Repetitions of each measurement.", lower_bound=1)


def main() -> None:
    """Measure, in the order of importance."""
    from benchmarks.device_decoding import measure_search
    from benchmarks.device_rates import measure_rates
    from benchmarks.device_training import measure_training

    start = time.monotonic()
    device = jax.devices()[0]
    rates = measure_rates(SMALL.value, ROUNDS.value)
    lines = [{"what": "device", "kind": device.device_kind, "platform": device.platform} | rates]
    print_json(lines[0])
    common: dict[str, Any] = dict(small=SMALL.value, rounds=ROUNDS.value, rates=rates)
    parts: list[tuple[str, Callable[[], dict]]] = [
        (f"train {size}, {kernel}", partial(measure_training, size, kernel, **common))
        for size in ("base", "big")
        for kernel in ("auto", "plain")
    ]
    parts += [
        (f"{name}, batch {batch}", partial(measure_search, name, batch, **common))
        for batch in ((4,) if SMALL.value else (64, 256, 1024))
        for name in ("W1", "W2")
    ]
    if importlib.util.find_spec("torch") is not None:
        from benchmarks.device_torch import measure_torch

        parts += [(f"PyTorch {size}", partial(measure_torch, size, **common)) for size in _sizes()]
    for name, result in _run(parts, start):
        lines.append({"what": name} | result)
        print_json(lines[-1])
    for row in _table(lines):
        log(row)


def _sizes() -> tuple[str, ...]:
    return ("base",) if SMALL.value else ("base", "big")


def _run(
    parts: Sequence[tuple[str, Callable[[], dict]]], start: float
) -> Iterator[tuple[str, dict]]:
    for name, part in parts:
        if time.monotonic() - start > 60 * MINUTES.value:
            yield name, {"skipped": "no time left"}
            continue
        try:
            yield name, part()
        except (jax.errors.JaxRuntimeError, RuntimeError) as error:  # such as out of memory
            yield name, {"failed": " ".join(str(error).split())[:300]}


def _table(lines: list[dict]) -> list[str]:
    """The measurements as rows of a Markdown table."""
    columns = ("tokens_per_second", "utilisation", "fraction_of_limit", "peak_bytes", "aot_bytes")
    rows = [f"| measurement | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for line in lines[1:]:
        cells = ["" if line.get(name) is None else str(line[name]) for name in columns]
        note = line.get("skipped") or line.get("failed", "")
        rows.append(f"| {line['what']}{': ' if note else ''}{note[:60]} | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    cli.run(main)
