"""Plots show their data, read back from the figures."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from decode.beam_tree import Node
from experiments.report.plots import attention, beams, paper, runs
from experiments.report.templates import render
from model.positions import sinusoids
from train.optimizer import make_schedule

TREE = [
    Node(0, 1, 0, 0.0, None, True),
    Node(0, 5, 1, -1.0, None, True),
    Node(0, 6, 1, -2.0, None, False),
    Node(1, 7, 2, -1.5, -1.25, True),
    Node(1, 8, 2, -1.7, None, False),
    Node(2, 8, 2, -2.5, None, False),
]


def test_missing_glyphs_are_found():
    assert attention.missing_glyphs(["naïve", "▁Größe", "東京", "東"]) == "京東"


SPECIAL = [*map(chr, (*range(0x20), *range(0x7F, 0xA0))), "\udfff", "\ud800", "\ufffe", "\uffff"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")  # missing glyphs in PNGs
def test_plots_of_any_vocabulary_are_valid(tmp_path):
    pieces = ["".join(SPECIAL[i::22]) for i in range(22)]
    weights = np.full((1, 1, 22, 22), 1 / 22)
    attention.plot_attention(weights, pieces, pieces, tmp_path / "map")
    assert isinstance(attention.missing_glyphs(pieces), str)
    images = [(tmp_path / "map.svg").read_bytes()]
    tree = [Node(0, 1, 0, 0.0, None, True), Node(0, 5, 1, -1.0, -1.0, True)]
    figures = (
        runs.plot_heads(weights[0], pieces, pieces, pieces[5]),
        beams.plot_beam_tree(tree, pieces[4:6]),
    )
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        for figure in figures:
            images.append(io.BytesIO())
            figure.savefig(images[-1], format="svg")
    for image in images:
        image = image if isinstance(image, bytes) else image.getvalue()
        text = "".join(ElementTree.fromstring(image).itertext())
        assert "\u241b" in text  # the symbol for ESC


def test_the_attention_page_supports_any_vocabulary():
    pieces = ["".join(SPECIAL)]
    html = render("attention", {"rows": pieces})
    assert html.encode() and not set(html) & set(SPECIAL) - {"\n"}
    data = re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", html, re.S)[1]
    assert json.loads(data)["rows"] == pieces


@pytest.mark.slow
@pytest.mark.parametrize("concatenated", [False, True])
def test_the_position_plot_shows_the_models_encodings(concatenated):
    encodings, similarities, _ = paper.positional_encodings(9, 16, concatenated).axes
    expected = sinusoids(jnp.arange(9, dtype=jnp.int32), 16, concatenated)
    np.testing.assert_allclose(encodings.images[0].get_array(), expected)
    similarity = np.asarray(similarities.images[0].get_array())
    for distance in range(9):
        np.testing.assert_allclose(
            similarity.diagonal(distance), similarity[0, distance], atol=1e-5
        )


def test_a_schedule_is_plotted_from_its_first_update():
    schedule = make_schedule("noam", learning_rate=1.0, warmup_steps=20, d_model=16)
    (axes,) = paper.learning_rates({"noam": schedule}, 100).axes
    steps, rates = axes.lines[0].get_data()
    assert steps[0] == 1 and steps[-1] == 100 and steps[np.argmax(rates)] == 20
    assert rates[-1] == pytest.approx(16**-0.5 * 100**-0.5)


def test_the_smoothed_loss_is_minimal_at_the_smoothed_target():
    (axes,) = paper.label_smoothing(50, (0.0, 0.2)).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    minima = [line.get_xdata()[0] for line in dots]
    np.testing.assert_allclose(minima, [0.999, 0.8 + 0.2 / 50], atol=2e-3)


def test_curves_show_the_events_with_gaps_at_non_finite_values():
    events = [
        {"step": 1, "event": "train", "loss": 3.0},
        {"step": 2, "event": "train", "loss": None},
        {"step": 2, "event": "valid", "loss": 2.5, "bleu": 7.0},
        {"step": 2, "event": "spike", "loss": 9.0},
    ]
    losses, bleus = runs.plot_curves(events).axes
    train, valid = losses.lines
    np.testing.assert_array_equal(train.get_ydata(), [3.0, np.nan])
    assert valid.get_xdata() == [2] and bleus.lines[0].get_ydata() == [7.0]


def test_each_head_has_its_map_and_axis_labels():
    weights = np.random.default_rng(0).random((2, 3, 4))
    figure = runs.plot_heads(weights, ["a", "b", "c"], ["w", "x", "y", "z"], "cross")
    assert figure.get_suptitle() == "cross" and len(figure.axes) == 2
    for head, axes in enumerate(figure.axes):
        np.testing.assert_array_equal(axes.images[0].get_array(), weights[head])
    names = figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()
    assert [[t.get_text() for t in side] for side in names] == [[*"wxyz"], [*"abc"]]


def test_a_beam_tree_connects_nodes_and_shows_scores():
    (axes,) = beams.plot_beam_tree(TREE, ["<s>", "Der", "Ein", "</s>", "Hund", "Hund"]).axes
    texts = {(t.get_position()[0], t.get_text()): t.get_position()[1] for t in axes.texts}
    assert set(texts) == {(0, "<s>"), (1, "Der"), (1, "Ein"), (2, "</s>  -1.25"), (2, "Hund")}
    positions = [t.get_position() for t in axes.texts]
    assert len(set(positions)) == len(TREE)  # no overlaps
    for node, line, position in zip(TREE[1:], axes.lines, positions[1:], strict=True):
        parent = positions[node.parent]
        assert [*zip(*line.get_data(), strict=True)] == [parent, position]
    assert [t.get_weight() == "bold" for t in axes.texts] == [node.best for node in TREE]
