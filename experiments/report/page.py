"""Render the report page: HTML with escaped text, without scripts or network access."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.atomic_write import write_atomic
from data.printable import drawable
from experiments.console import progress_bar
from experiments.report import chart
from experiments.report.curves import draw_curves
from experiments.report.examples import worst_and_best
from experiments.report.lengths import score_by_length
from experiments.report.record import Run
from experiments.report.settings import settings
from train.progress import format_duration

REPORT = "report.html"
_FOLDER = Path(__file__).parent


class RunSummary(NamedTuple):
    """A run in one row: its last update, its best validation and its test."""

    step: int
    seconds: float | None
    valid: dict
    test: dict
    messages: list[str]  # about skipped updates, spikes and rollbacks


def write_report(runs: Sequence[Run], output: Path) -> None:
    """Write the page of these runs atomically. Raises OSError."""
    write_atomic(output, render(runs).encode())


def render(runs: Sequence[Run]) -> str:
    """Render the page of these runs."""
    with progress_bar("scoring sentences", sum(len(run.translations) for run in runs)) as progress:
        examples = [worst_and_best(run, progress=progress) for run in runs]
    return _template().render(
        runs=runs,
        summaries=[summarize(run) for run in runs],
        charts=draw_curves(runs),
        lengths=score_by_length(runs),
        examples=examples,
        settings=settings([run.experiment for run in runs]),
        style=(_FOLDER / "style.css").read_text(encoding="utf-8"),
    )


def summarize(run: Run) -> RunSummary:
    """Summarize a run in one row; without BLEU, the best validation has the lowest loss."""
    valid = [event for event in run.events_of("valid") if event.get("loss") is not None]
    best = max(valid, key=lambda e: (e.get("bleu") or 0, -e["loss"]), default={})
    counts = {
        "update{} skipped": sum(
            event.get("skipped_updates") or 0 for event in run.events_of("train")
        ),
        "loss spike{}": len(run.events_of("spike")),
        "rollback{}": len(run.events_of("rollback")),
    }
    return RunSummary(
        max(event["step"] for event in run.events),
        max((event.get("elapsed_seconds") or 0 for event in run.events), default=0) or None,
        best,
        (run.events_of("test") or [{}])[-1],
        [
            f"{count:,.0f} {template.format('' if count == 1 else 's')}"
            for template, count in counts.items()
            if count
        ],
    )


def _template():
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: drawable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": chart.format_number,
        "duration": format_duration,
        "points": _points,
    }
    environment.globals |= {name: getattr(chart, name) for name in _SIZES}
    return environment.get_template("page.html")


_SIZES = ("WIDTH", "HEIGHT", "LEFT", "RIGHT", "TOP", "BOTTOM", "COLORS")
_points = partial("{:.1f}".format)  # of a score from 0 to 100
