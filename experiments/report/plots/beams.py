"""Plot of a beam search as a tree."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from data.printable import drawable
from decode.beam_tree import Node


def plot_beam_tree(nodes: Sequence[Node], pieces: Sequence[str]) -> Figure:
    """Plot the nodes of `decode.beam_tree.beam_tree`; `pieces` are their tokens as text.

    One column per step. The best output is bold; the score of an output follows its EOS. A node
    without child and score was pruned.
    """
    height, rows = _heights(nodes)
    last_step = max(node.step for node in nodes)
    figure = Figure(figsize=(2 + 1.15 * last_step, 1 + 0.3 * height), layout="constrained")
    axes = figure.subplots()
    for number, (node, piece) in enumerate(zip(nodes, pieces, strict=True)):
        parent = nodes[node.parent]
        color, weight = ("C0", "bold") if node.best else ("0.35", "normal")
        if number:
            edge = [parent.step, node.step], [rows[node.parent], rows[number]]
            axes.plot(*edge, color=color, linewidth=2 if node.best else 0.8, zorder=0)
        piece = drawable(piece)
        text = piece if node.score is None else f"{piece}  {node.score:.2f}"
        style: dict[str, Any] = dict(fontsize=8, color=color, weight=weight)
        style |= dict(bbox=dict(facecolor="white", edgecolor="none", pad=1.5))
        style |= dict(parse_math=False)  # a piece may be a dollar sign
        axes.text(node.step, rows[number], text, ha="center", va="center", **style)
    axes.set(xlim=(-0.6, last_step + 0.9), ylim=(height - 0.3, -0.7), yticks=[], xlabel="tokens")
    axes.spines[["left", "right", "top"]].set_visible(False)
    return figure


def _heights(nodes: Sequence[Node]) -> tuple[int, list[float]]:
    """Number of leaves, and the row of each node: inner nodes are centered on their children."""
    children: list[list[int]] = [[] for _ in nodes]
    for number, node in enumerate(nodes[1:], 1):
        children[node.parent].append(number)
    order, stack = [], [0]
    while stack:
        number = stack.pop()
        order.append(number)
        stack += reversed(children[number])
    rows, leaves = [0.0] * len(nodes), 0
    for number in order:
        if not children[number]:
            rows[number], leaves = float(leaves), leaves + 1
    for number in reversed(order):
        if children[number]:
            rows[number] = sum(rows[child] for child in children[number]) / len(children[number])
    return leaves, rows
