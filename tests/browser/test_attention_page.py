"""The attention maps page, opened from disk in a browser."""

import numpy as np
import pytest

from experiments.attention import interactive
from experiments.report.templates import json_in_html

SOURCE = ["▁I", "▁am", "</script>", "▁<!--", "</s>"]
READ, WRITTEN = ["<s>", "▁Ich", "▁bin", "$x$"], ["▁Ich", "▁bin", "$x$", "</s>"]
AXES = {"encoder": (SOURCE, SOURCE), "decoder": (READ, READ), "cross": (WRITTEN, SOURCE)}
TEXT = 'I am</script><!-- <script>alert(1)</script> & \u2028 \\ "'


@pytest.fixture
def maps():
    random = np.random.default_rng(0)
    maps_by_kind = {}
    for kind, (rows, columns) in AXES.items():
        logits = 3 * random.normal(size=(2, 3, len(rows), len(columns)))
        maps_by_kind[kind] = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return maps_by_kind


@pytest.fixture
def page(new_page, maps, tmp_path):
    file = tmp_path / "attention.html"
    file.write_text(interactive(TEXT, "Ich bin", maps, AXES), "utf-8")
    new_page.goto(file.as_uri())
    yield new_page
    assert new_page.messages == []
    assert new_page.requests == [file.as_uri()]  # no other requests


def shown_weights(page, side):
    words = page.locator(f"#{side} button")
    return [float(words.nth(i).get_attribute("data-weight")) for i in range(words.count())]


def choose(page, name, label):
    page.locator(f"#{name} label", has_text=label).click()


def test_hovering_over_a_token_shows_its_attention(page, maps):
    assert page.locator("#source").text_content() == TEXT
    assert page.locator("#rows button").count() == len(WRITTEN)
    choose(page, "layer", "2")
    for label, values in (
        ("3", maps["cross"][1, 2]),
        ("1", maps["cross"][1, 0]),
        ("mean", maps["cross"][1].mean(0)),
    ):
        choose(page, "head", label)
        page.locator("#rows button").nth(2).hover()
        np.testing.assert_allclose(shown_weights(page, "columns"), values[2], atol=1 / 255)
        assert shown_weights(page, "rows") == [0] * len(WRITTEN)
        page.locator("#columns button").nth(1).hover()
        np.testing.assert_allclose(shown_weights(page, "rows"), values[:, 1], atol=1 / 255)
    page.mouse.move(0, 0)
    assert set(shown_weights(page, "rows") + shown_weights(page, "columns")) == {0}
    strongest = SOURCE[int(values[2].argmax())]
    page.locator("#rows button").nth(2).hover()
    assert page.locator("#summary").text_content().startswith(f"$x$ attends to {strongest} ")


@pytest.mark.parametrize("kind", AXES)
def test_every_kind_of_attention_shows_its_tokens(page, maps, kind):
    choose(page, "kind", kind)
    for side, pieces in zip(("rows", "columns"), AXES[kind], strict=True):
        shown = page.locator(f"#{side} button").evaluate_all(
            "all => all.map(b => b.firstChild.data)"
        )
        assert shown == pieces
    choose(page, "layer", "1")
    choose(page, "head", "2")
    page.locator("#rows button").nth(0).hover()
    np.testing.assert_allclose(shown_weights(page, "columns"), maps[kind][0, 1, 0], atol=1 / 255)


def test_it_works_with_the_keyboard_only(page, maps):
    page.locator("#kind input:checked").focus()
    page.keyboard.press("ArrowLeft")  # from cross to decoder
    assert page.locator("#kind input:checked").get_attribute("value") == "decoder"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # from the mean to the first head
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    np.testing.assert_allclose(
        shown_weights(page, "columns"), maps["decoder"][1, 0, 2], atol=1 / 255
    )
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    np.testing.assert_allclose(
        shown_weights(page, "columns"), maps["decoder"][1, 0, 2], atol=1 / 255
    )


def test_the_overview_shows_all_heads_and_selects_one(page, maps):
    heads = page.locator("#overview button")
    assert heads.count() == 2 * 3
    heads.nth(4).click()
    assert heads.nth(4).get_attribute("aria-pressed") == "true"
    page.locator("#rows button").nth(1).hover()
    np.testing.assert_allclose(shown_weights(page, "columns"), maps["cross"][1, 1, 1], atol=1 / 255)
    pixels = (
        heads.nth(4)
        .locator("canvas")
        .evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    )
    reds = np.array(pixels).reshape(len(WRITTEN), len(SOURCE), 4)[..., 0]
    assert (reds.argmin(-1) == maps["cross"][1, 1].argmax(-1)).all()  # larger weights are darker


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_color_scheme_follows_the_system_or_the_selection(page, scheme):
    page.emulate_media(color_scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor"
    assert (
        page.evaluate(background)
        == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
    )
    other = {"light": "dark", "dark": "light"}[scheme]
    before = page.evaluate(background)
    page.locator("#theme").select_option(other)
    assert page.evaluate(background) != before


def test_text_cannot_end_the_script():
    assert not set("<>&\u2028") & set(json_in_html({"text": TEXT}))
