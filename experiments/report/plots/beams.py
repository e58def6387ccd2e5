"""A beam search as a tree."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from data.printable import drawable
from decode.beam_tree import Node


def tree(nodes: Sequence[Node], pieces: Sequence[str]) -> Figure:
    """The tree of `decode.beam_tree.beam_tree`, `pieces` its nodes' tokens as text.

    A column a step. The best output is drawn bold; an output's score stands after its end. What
    has no child and no score was dropped.
    """
    height, at = _heights(nodes)
    last = max(node.step for node in nodes)
    figure = Figure(figsize=(2 + 1.15 * last, 1 + 0.3 * height), layout="constrained")
    axes = figure.subplots()
    for number, (node, piece) in enumerate(zip(nodes, pieces, strict=True)):
        parent = nodes[node.parent]
        colour, weight = ("C0", "bold") if node.best else ("0.35", "normal")
        if number:
            ends = [parent.step, node.step], [at[node.parent], at[number]]
            axes.plot(*ends, color=colour, linewidth=2 if node.best else 0.8, zorder=0)
        piece = drawable(piece)
        text = piece if node.score is None else f"{piece}  {node.score:.2f}"
        look: dict[str, Any] = dict(fontsize=8, color=colour, weight=weight)
        look |= dict(bbox=dict(facecolor="white", edgecolor="none", pad=1.5))
        look |= dict(parse_math=False)  # a piece may be a dollar sign
        axes.text(node.step, at[number], text, ha="center", va="center", **look)
    axes.set(xlim=(-0.6, last + 0.9), ylim=(height - 0.3, -0.7), yticks=[], xlabel="tokens")
    axes.spines[["left", "right", "top"]].set_visible(False)
    return figure


def _heights(nodes: Sequence[Node]) -> tuple[int, list[float]]:
    """How many leaves there are, and each node's place: leaves in order, others amid theirs."""
    children: list[list[int]] = [[] for _ in nodes]
    for number, node in enumerate(nodes[1:], 1):
        children[node.parent].append(number)
    order, stack = [], [0]
    while stack:
        number = stack.pop()
        order.append(number)
        stack += reversed(children[number])
    at, leaves = [0.0] * len(nodes), 0
    for number in order:
        if not children[number]:
            at[number], leaves = float(leaves), leaves + 1
    for number in reversed(order):
        if children[number]:
            at[number] = sum(at[child] for child in children[number]) / len(children[number])
    return leaves, at
