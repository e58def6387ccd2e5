"""Charts of reports: ticks, and lines within the chart."""

import math

import hypothesis
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments.report.chart import Series, downsample, draw, drawable, ticks


@hypothesis.settings(deadline=None, derandomize=True)
@given(st.floats(-1e9, 1e9), st.floats(1e-5, 1e9), st.integers(2, 9))
def test_ticks_are_round_and_enclose_the_range(low, width, max_ticks):
    assume(width > 1e-6 * abs(low))  # closer numbers differ only by rounding
    positions = ticks(low, low + width, max_ticks)
    high = low + width
    assert (
        positions[0] <= low + 1e-9 * abs(low) + 1e-12
        and positions[-1] >= high - 1e-9 * abs(high) - 1e-12
    )
    assert 2 <= len(positions) <= max_ticks + 1
    step = positions[1] - positions[0]
    assert all(
        abs(b - a - step) <= 1e-6 * step for a, b in zip(positions, positions[1:], strict=False)
    )
    assert f"{step:.0e}"[0] in "125"


@hypothesis.settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_lines_are_within_the_chart_and_retain_their_peaks(values):
    points = list(enumerate(values))
    chart = draw("t", "x", "y", [Series("a", "train", 0, points)])
    (line,) = chart.lines
    coordinates = [tuple(map(float, point.split(","))) for point in line.path.split()]
    assert all(59.9 <= x <= 446.1 and 13.9 <= y <= 228.1 for x, y in coordinates)
    assert len(coordinates) <= 502 and len(line.hovered) <= 61
    downsampled = [y for _, y in downsample(points, 500)]
    assert min(downsampled) == min(values) and max(downsampled) == max(values)


@hypothesis.settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False).filter(drawable), min_size=1))
@hypothesis.example([0.0, 5e-324])
@hypothesis.example([1.0, 1.0000000000000002])
@hypothesis.example([-9e299, 9e299])
def test_all_drawable_values_are_drawn(values):
    chart = draw("t", "x", "y", [Series("a", "train", 0, list(enumerate(values)))])
    coordinates = [float(x) for point in chart.lines[0].path.split() for x in point.split(",")]
    assert all(map(math.isfinite, [*coordinates, *(tick.position for tick in chart.y_ticks)]))
    assert all(len(tick.text) < 30 for tick in chart.y_ticks)
