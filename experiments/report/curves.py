"""Training curves of all runs in one chart."""

from collections.abc import Sequence

from experiments.report.chart import Chart, Series, draw, drawable
from experiments.report.record import Run

# title, unit, caption, and the lines: (event, key of the event, factor)
_CURVES = (
    (
        "Loss",
        "nats per target token",
        "Training loss is label-smoothed, validation loss is not.",
        (("train", "loss", 1), ("valid", "loss", 1)),
    ),
    (
        "BLEU",
        "",
        "By beam search, on validation and test.",
        (("valid", "bleu", 1), ("test", "bleu", 1)),
    ),
    ("Learning rate", "", "Of the latest update.", (("train", "learning_rate", 1),)),
    (
        "Speed",
        "tokens per second",
        "Source and target tokens, without padding, during updates.",
        (("train", "tokens_per_second", 1),),
    ),
    (
        "Padding",
        "% of positions",
        "Share of batch positions without a token.",
        (("train", "padding_fraction", 100),),
    ),
)


def draw_curves(runs: Sequence[Run]) -> list[Chart]:
    """Charts of loss, BLEU, learning rate, tokens per second and padding, over updates."""
    return [
        draw(title, "update", unit, _series(runs, lines), caption, from_zero=title != "Loss")
        for title, unit, caption, lines in _CURVES
    ]


def _series(runs: Sequence[Run], lines) -> list[Series]:
    series = []
    for number, run in enumerate(runs):
        for name, key, factor in lines:
            points: list[tuple[float, float]] = [
                (_step(event), event[key] * factor)
                for event in run.events_of(name)
                if drawable(event.get(key))
            ]
            if points:
                series.append(Series(run.name, name, number, points))
    return series


def _step(event: dict) -> int:
    """The step of an event; a test belongs to the step of its checkpoint."""
    checkpoint = event.get("checkpoint")
    return checkpoint if isinstance(checkpoint, int) else event["step"]
