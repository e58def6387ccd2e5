"""Print reports of compiled programs as text, and write them into a folder."""

from collections.abc import Sequence
from pathlib import Path

from aot.fit import describe
from aot.report import ESTIMATE, Report
from aot.targets import GIB
from data.atomic_write import write_atomic
from experiments.report.compiled import render
from model import ConfigError

PAGE = "compile.html"


def print_report(report: Report) -> None:
    """Print a report to stdout."""
    print("\n".join(report_lines(report)), flush=True)


def report_lines(report: Report) -> list[str]:
    """A report as lines of text."""
    shape = ", ".join(f"{name} {size:,}" for name, size in report.shape.items())
    settings = ", ".join(f"{name}={value}" for name, value in report.settings.items())
    lines = [
        f"{report.what} for {report.target.text}: {report.target.count} devices, "
        f"mesh {describe(report.mesh)}",
        f"  batch of all devices: {shape} (from the {report.shape_source})",
        f"  model: {report.num_params:,} parameters; {settings}",
        *_memory_lines(report),
        *_collective_lines(report),
    ]
    if report.useful_flops:
        lines.append(f"  useful TFLOP per step and device: {report.useful_flops / 1e12:.3f}")
    lines += _cycle_lines(report)
    return [*lines, f"  compiled in {report.compile_seconds:.1f} s", ""]


def _memory_lines(report: Report) -> list[str]:
    memory = report.memory
    lines = ["  memory of a device, GiB:"]
    lines += [f"    {name:28}{size / GIB:10.3f}" for name, size in memory.components.items()]
    total = f"    {'total':28}{memory.total / GIB:10.3f}"
    if memory.headroom is not None:
        total += f" of {memory.capacity / GIB:.2f}, headroom {memory.headroom / GIB:.2f}"
    lines.append(total)
    if not memory.fits:
        lines += [f"  DOES NOT FIT; what would help: {advice(report)}"]
    return lines


def advice(report: Report) -> str:
    """What would make a program fit, in the order of what it costs."""
    if report.what == "search":
        return "fewer --sentences, a smaller search.beam_size, or a mesh with fsdp"
    state = sum(report.memory.components.get(n, 0) for n in ("parameters", "optimizer"))
    options = []
    if report.mesh["fsdp"] == 1 and report.target.count > 1:
        options.append(
            f"mesh.fsdp={report.target.count} (divides {state / GIB:.1f} GiB of parameters and "
            "optimizer)"
        )
    if report.settings.get("remat") != "full":
        options.append("model.remat=dots or full (recomputes activations)")
    options.append("optimizer.grad_accum_steps (divides activations)")
    options.append("fewer data.tokens_per_batch")
    if report.mesh["tensor"] == 1 and report.target.count > 1:
        options.append("mesh.tensor (divides layers and logits)")
    return "; ".join([*options, "--fit tries these"])


def _collective_lines(report: Report) -> list[str]:
    if not report.collectives:
        return ["  collectives: none"] if report.text else []
    lines = ["  collectives of one run, on one device:"]
    for c in report.collectives:
        where = "" if not c.in_loop else ", in a loop"
        where += "" if c.counted else " (of one pass)"
        lines.append(
            f"    {c.kind:20} over {c.axes:14} {c.executions:6,} times, "
            f"{c.bytes / 1e6:12,.1f} MB{where}"
        )
    return lines


def _cycle_lines(report: Report) -> list[str]:
    cycles = report.cycles
    if cycles is None:
        return []
    lines = []
    if report.seconds is not None:
        parts = [f"{cycles.total / 1e6:,.1f} million cycles", f"{report.seconds * 1e3:,.1f} ms"]
        if report.tokens_per_second:
            parts.append(f"{report.tokens_per_second:,.0f} tokens/s")
        if report.utilisation:
            parts.append(f"utilisation {report.utilisation:.2f}")
        lines.append(f"  {ESTIMATE}: {', '.join(parts)}")
        lines += _components(cycles.components)
    clock = report.target.hardware.clock
    for loop, components in cycles.per_pass.items():
        total = sum(components.values())
        time = f", {total / clock * 1e3:.3f} ms" if clock else ""
        lines.append(f"  {ESTIMATE}, one step in {loop!r}: {total / 1e6:.3f} million cycles{time}")
        lines += _components(components)
    lines += [
        f"    {'by arithmetic' if k.cycles else 'no estimate'}: {(k.cycles or 0) / 1e6:.3f} for "
        f"{k.name} ({k.component}), {k.executions} times"
        for k in cycles.kernels
    ]
    return lines


def _components(components: dict[str, int]) -> list[str]:
    return [f"    {name:28}{count / 1e6:10.3f}" for name, count in components.items()]


def prepare_folder(folder: Path) -> Path:
    """Create the folder for reports. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output={folder} cannot be created: {error.strerror}") from None
    return folder


def write_reports(folder: Path, reports: Sequence[Report]) -> None:
    """Write the program texts and the HTML page. Raises ConfigError."""
    try:
        for number, report in enumerate(reports, 1):
            if report.text:
                name = f"{number}_{report.what}_{describe(report.mesh).replace(', ', '_')}.hlo.txt"
                write_atomic(folder / name.replace(" ", "_"), report.text.encode())
        write_atomic(folder / PAGE, render(reports).encode())
    except OSError as error:
        raise ConfigError(f"--output={folder} cannot be written: {error.strerror}") from None
