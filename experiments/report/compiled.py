"""Render the page of compiled programs: memory and estimated cycles as bars, one column a mesh."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from aot.fit import describe
from aot.report import ESTIMATE, Report
from aot.targets import GIB

_FOLDER = Path(__file__).parent


class Cell(NamedTuple):
    """A figure as text, and its bar's length in percent of the longest of its table."""

    text: str
    percent: float


class Row(NamedTuple):
    """One component in all reports."""

    name: str
    cells: list[Cell]


def render(reports: Sequence[Report]) -> str:
    """Render the page of these reports, without scripts or network access."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["mesh"] = describe
    return environment.get_template("compiled.html").render(
        reports=reports,
        memory=bars([r.memory.components for r in reports], GIB, "{:.3f}"),
        cycles=bars([_cycles(r) for r in reports], 1e6, "{:.2f}"),
        estimate=ESTIMATE,
        gib=GIB,
        style=(_FOLDER / "style.css").read_text(encoding="utf-8"),
    )


def _cycles(report: Report) -> dict[str, int]:
    """Cycles by component: of a run, and of one pass of each loop of unknown length."""
    if report.cycles is None:
        return {}
    result = dict(report.cycles.components)
    for loop, components in report.cycles.per_pass.items():
        result |= {f"one step in {loop}: {name}": n for name, n in components.items()}
    return result


def bars(columns: Sequence[dict[str, int]], unit: float, pattern: str) -> list[Row]:
    """Rows of all components in the columns, the largest first, in multiples of `unit`."""
    names = {name: max(c.get(name, 0) for c in columns) for column in columns for name in column}
    longest = max(names.values(), default=0) or 1
    return [
        Row(
            name,
            [
                Cell(
                    pattern.format(column[name] / unit) if name in column else "–",
                    100 * column.get(name, 0) / longest,
                )
                for column in columns
            ],
        )
        for name in sorted(names, key=lambda n: -names[n])
    ]
