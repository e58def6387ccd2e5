"""Attention maps of all layers and heads in one figure, PNG and SVG."""

import io
from collections.abc import Iterable
from pathlib import Path

from data.atomic_write import write_atomic
from data.printable import drawable

_DPI = 150
_MAX_PIXELS = 16_000  # per side: common viewers open no larger image


def missing_glyphs(pieces: Iterable[str]) -> str:
    """Characters that matplotlib's font lacks, which a PNG shows as boxes."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    characters = set(drawable("".join(pieces)))
    return "".join(sorted(c for c in characters if not font.get_char_index(ord(c))))


def plot_attention(weights, rows: list[str], columns: list[str], file: Path) -> None:
    """Plot weights [layers, heads, rows, columns] to `file`.png and `file`.svg.

    One small map per head, with subword pieces of a fixed size on both axes, so a long sentence
    makes a large image. Beyond 16,000 pixels per side the PNG has a lower resolution; the SVG stays
    sharp. Control characters are drawn as symbols. The same weights give the same bytes.
    Raises OSError.
    """
    import matplotlib
    from matplotlib.figure import Figure

    layers, heads = weights.shape[:2]
    rows, columns = [*map(drawable, rows)], [*map(drawable, columns)]
    # Inches: 0.16 per piece, plus the longest label.
    width = 0.4 + 0.16 * len(columns)
    height = 0.4 + 0.16 * len(rows) + 0.07 * max(map(len, columns))
    size = heads * width + 0.07 * max(map(len, rows)), layers * height
    # Text in the SVG stays searchable, and viewers have fonts for all scripts.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "heed"}):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(layers, heads, squeeze=False)
        for layer in range(layers):
            for head in range(heads):
                cell, leftmost = grid[layer][head], head == 0
                cell.imshow(
                    weights[layer, head],
                    cmap="Blues",
                    vmin=0,
                    vmax=1,
                    aspect="auto",
                    interpolation="none",
                )
                cell.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
                label_style = dict(fontsize=7, parse_math=False)  # a piece may be a dollar sign
                cell.set_xticks(range(len(columns)), columns, rotation=90, **label_style)
                cell.set_yticks(
                    range(len(rows)), rows if leftmost else [""] * len(rows), **label_style
                )
                cell.tick_params(length=0)
        dpi = min(_DPI, _MAX_PIXELS / max(size))
        for suffix, metadata in ("png", None), ("svg", {"Date": None}):
            picture = io.BytesIO()
            figure.savefig(picture, format=suffix, dpi=dpi, metadata=metadata)
            write_atomic(file.with_suffix(f".{suffix}"), picture.getvalue())
