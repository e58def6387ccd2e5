"""Charts as geometry for SVG: axes with ticks, lines, points."""

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 60, 28, 14, 42  # on the right, room for half of the last tick
COLORS = 8  # colors that the page defines
_MOST_POINTS, _MOST_HOVERED = 500, 60
_LEAST, _MOST = 1e-300, 1e300  # the arithmetic of axes neither overflows nor divides by zero


class Series(NamedTuple):
    """One line of a chart; `run` determines its color, `kind` its stroke."""

    name: str
    kind: str
    run: int
    points: list[tuple[float, float]]

    @property
    def color(self) -> int:
        """Index of its color."""
        return self.run % COLORS


class Tick(NamedTuple):
    """A position on an axis in drawing units, and its label."""

    at: float
    text: str


class Line(NamedTuple):
    """A series in drawing units; `hovered` has (x, y, tooltip) of some points."""

    series: Series
    path: str
    hovered: list[tuple[float, float, str]]


class Chart(NamedTuple):
    """The geometry of a chart; a chart without lines is empty."""

    title: str
    across: str
    unit: str
    caption: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]


def draw(
    title: str,
    across: str,
    unit: str,
    series: Sequence[Series],
    caption: str = "",
    from_zero: bool = False,
) -> Chart:
    """Lay out a chart of these series; `across` and `unit` label its axes (horizontal, vertical).

    The vertical axis begins at zero with `from_zero`, else near the minimum.
    """
    points = [point for line in series for point in line.points]
    if not points:
        return Chart(title, across, unit, caption, [], [], [])
    xs, ys = zip(*points, strict=True)
    x_marks, y_marks = ticks(0, max(xs)), ticks(0 if from_zero else min(ys), max(ys), 5)
    # Lines end at the last update, values between the outermost marks.
    x_low, x_high = min(0, *xs), max(xs) or 1
    y_low, y_high = min(y_marks[0], *ys), max(y_marks[-1], *ys)

    def across_to(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up_to(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    lines = []
    for line in series:
        drawn = thinned(line.points, _MOST_POINTS)
        path = " ".join(f"{across_to(x):.1f},{up_to(y):.1f}" for x, y in drawn)
        apart = -(-len(line.points) // _MOST_HOVERED)
        hovered = [
            (round(across_to(x), 1), round(up_to(y), 1), f"{number(x)}: {number(y)}")
            for x, y in line.points[::-apart][::-1]
        ]
        lines.append(Line(line, path, hovered))
    return Chart(
        title,
        across,
        unit,
        caption,
        [Tick(round(across_to(x), 1), number(x)) for x in x_marks if x <= x_high],
        [Tick(round(up_to(y), 1), number(y)) for y in y_marks],
        lines,
    )


def drawable(value: object) -> bool:
    """Whether this is a number that an axis can show: a corrupt run may contain 1e308."""
    return isinstance(value, int | float) and abs(value) < _MOST


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) that enclose both."""
    if high - low <= max(_LEAST, 1e-12 * abs(high), 1e-12 * abs(low)):
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        # A BLEU of 100 may be 100.00000000000004.
        low_index, high_index = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if high_index - low_index <= most:
            break
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(n * step, digits) for n in range(low_index, high_index + 1)]


def thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Downsample to about `most` points: the minimum and maximum of each stretch, to keep peaks."""
    if len(points) <= most:
        return points
    stretch = -(-2 * len(points) // most)
    remaining = []
    for start in range(0, len(points), stretch):
        segment = points[start : start + stretch]
        remaining += sorted({min(segment, key=lambda p: p[1]), max(segment, key=lambda p: p[1])})
    return remaining


def number(value: float) -> str:
    """Format a number for people: 12,500, 3.274, 1.2e-05."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e15:
        return f"{value:.3g}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
