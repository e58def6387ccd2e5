"""SVG chart geometry: axes with ticks, lines, points."""

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 60, 28, 14, 42  # the right margin holds half of the last tick label
COLORS = 8  # number of colors in style.css
_MAX_POINTS, _MAX_HOVERED = 500, 60
_MIN_RANGE, _MAX_VALUE = 1e-300, 1e300  # so that axes neither overflow nor divide by zero


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

    position: float
    text: str


class Line(NamedTuple):
    """A series in drawing units; `hovered` has (x, y, tooltip) of some points."""

    series: Series
    path: str
    hovered: list[tuple[float, float, str]]


class Chart(NamedTuple):
    """The geometry of a chart; a chart without lines is empty."""

    title: str
    x_label: str
    unit: str
    caption: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]


def draw(
    title: str,
    x_label: str,
    unit: str,
    series: Sequence[Series],
    caption: str = "",
    from_zero: bool = False,
) -> Chart:
    """Lay out a chart of these series; `x_label` and `unit` label its axes.

    The vertical axis starts at zero with `from_zero`, otherwise near the minimum.
    """
    points = [point for line in series for point in line.points]
    if not points:
        return Chart(title, x_label, unit, caption, [], [], [])
    xs, ys = zip(*points, strict=True)
    x_values, y_values = ticks(0, max(xs)), ticks(0 if from_zero else min(ys), max(ys), 5)
    # The x axis ends at the last update, the y axis at the outermost ticks.
    x_low, x_high = min(0, *xs), max(xs) or 1
    y_low, y_high = min(y_values[0], *ys), max(y_values[-1], *ys)

    def x_position(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y_position(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    lines = []
    for line in series:
        drawn = downsample(line.points, _MAX_POINTS)
        path = " ".join(f"{x_position(x):.1f},{y_position(y):.1f}" for x, y in drawn)
        stride = -(-len(line.points) // _MAX_HOVERED)
        hovered = [
            (
                round(x_position(x), 1),
                round(y_position(y), 1),
                f"{format_number(x)}: {format_number(y)}",
            )
            for x, y in line.points[::-stride][::-1]
        ]
        lines.append(Line(line, path, hovered))
    return Chart(
        title,
        x_label,
        unit,
        caption,
        [Tick(round(x_position(x), 1), format_number(x)) for x in x_values if x <= x_high],
        [Tick(round(y_position(y), 1), format_number(y)) for y in y_values],
        lines,
    )


def drawable(value: object) -> bool:
    """Whether this is a number that an axis can show: a corrupt run may contain 1e308."""
    return isinstance(value, int | float) and abs(value) < _MAX_VALUE


def ticks(low: float, high: float, max_steps: int = 6) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, that enclose `low` and `high`."""
    if high - low <= max(_MIN_RANGE, 1e-12 * abs(high), 1e-12 * abs(low)):
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / max_steps))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        # A BLEU of 100 may be 100.00000000000004.
        low_index, high_index = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if high_index - low_index <= max_steps:
            break
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(n * step, digits) for n in range(low_index, high_index + 1)]


def downsample(points: list[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """Downsample to about `count` points: the minimum and maximum of each segment keep peaks."""
    if len(points) <= count:
        return points
    length = -(-2 * len(points) // count)
    extremes = []
    for start in range(0, len(points), length):
        segment = points[start : start + length]
        extremes += sorted({min(segment, key=lambda p: p[1]), max(segment, key=lambda p: p[1])})
    return extremes


def format_number(value: float) -> str:
    """Format a number for display: 12,500, 3.274, 1.2e-05."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e15:
        return f"{value:.3g}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
