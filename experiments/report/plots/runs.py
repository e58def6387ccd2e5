"""Plots of a run's training curves and attention heads."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from data.printable import drawable


def plot_curves(events: Sequence[dict]) -> Figure:
    """Plot loss and BLEU by step, from the events of `train.metrics.read_metrics`."""
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    losses, bleus = figure.subplots(1, 2)
    for axes, event, name in (
        (losses, "train", "loss"),
        (losses, "valid", "loss"),
        (bleus, "valid", "bleu"),
    ):
        points = [(e["step"], e[name]) for e in events if e["event"] == event and name in e]
        # Non-finite numbers are null in the file; nan leaves a gap.
        steps, values = np.array(points, float).reshape(-1, 2).T
        axes.plot(steps, values, ".-", label=f"{event} {name}")
        axes.set_xlabel("step")
        axes.legend()
    losses.set_ylabel("nats per token")
    bleus.set_ylim(0, 100)
    return figure


def plot_heads(
    weights: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = ""
) -> Figure:
    """Plot one layer's attention weights [heads, rows, columns] as a map per head."""
    rows, columns = [*map(drawable, rows)], [*map(drawable, columns)]
    count = len(weights)
    width = 0.6 + 0.22 * len(columns)
    height = 1.1 + 0.22 * len(rows)
    figure = Figure(figsize=(1 + count * width, height), layout="constrained")
    figure.suptitle(drawable(title), parse_math=False)
    for head, cell in enumerate(figure.subplots(1, count, squeeze=False)[0]):
        cell.imshow(weights[head], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        cell.set_title(f"head {head + 1}", fontsize=8)
        label_style = dict(fontsize=8, parse_math=False)  # a piece may be a dollar sign
        cell.set_xticks(range(len(columns)), columns, rotation=90, **label_style)
        cell.set_yticks(range(len(rows)), rows if head == 0 else [""] * len(rows), **label_style)
        cell.tick_params(length=0)
    return figure
