"""The page of attention maps, opened from disk in a browser."""

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
    found = {}
    for kind, (rows, columns) in AXES.items():
        logits = 3 * random.normal(size=(2, 3, len(rows), len(columns)))
        found[kind] = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return found


@pytest.fixture
def page(opened, maps, tmp_path):
    file = tmp_path / "attention.html"
    file.write_text(interactive(TEXT, "Ich bin", maps, AXES), "utf-8")
    opened.goto(file.as_uri())
    yield opened
    assert opened.said == []
    assert opened.asked == [file.as_uri()]  # itself, and nothing else


def lit(page, side):
    words = page.locator(f"#{side} button")
    return [float(words.nth(i).get_attribute("data-weight")) for i in range(words.count())]


def choose(page, name, label):
    page.locator(f"#{name} label", has_text=label).click()


def test_a_word_lights_up_what_it_attends_to(page, maps):
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
        np.testing.assert_allclose(lit(page, "columns"), values[2], atol=1 / 255)
        assert lit(page, "rows") == [0] * len(WRITTEN)
        page.locator("#columns button").nth(1).hover()
        np.testing.assert_allclose(lit(page, "rows"), values[:, 1], atol=1 / 255)
    page.mouse.move(0, 0)
    assert set(lit(page, "rows") + lit(page, "columns")) == {0}
    strongest = SOURCE[int(values[2].argmax())]
    page.locator("#rows button").nth(2).hover()
    assert page.locator("#said").text_content().startswith(f"$x$ attends to {strongest} ")


@pytest.mark.parametrize("kind", AXES)
def test_every_kind_has_its_own_pieces(page, maps, kind):
    choose(page, "kind", kind)
    for side, pieces in zip(("rows", "columns"), AXES[kind], strict=True):
        shown = page.locator(f"#{side} button").evaluate_all(
            "all => all.map(b => b.firstChild.data)"
        )
        assert shown == pieces
    choose(page, "layer", "1")
    choose(page, "head", "2")
    page.locator("#rows button").nth(0).hover()
    np.testing.assert_allclose(lit(page, "columns"), maps[kind][0, 1, 0], atol=1 / 255)


def test_it_works_with_the_keyboard_alone(page, maps):
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
    np.testing.assert_allclose(lit(page, "columns"), maps["decoder"][1, 0, 2], atol=1 / 255)
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    np.testing.assert_allclose(lit(page, "columns"), maps["decoder"][1, 0, 2], atol=1 / 255)


def test_the_overview_shows_all_heads_and_chooses_one(page, maps):
    heads = page.locator("#overview button")
    assert heads.count() == 2 * 3
    heads.nth(4).click()
    assert heads.nth(4).get_attribute("aria-pressed") == "true"
    page.locator("#rows button").nth(1).hover()
    np.testing.assert_allclose(lit(page, "columns"), maps["cross"][1, 1, 1], atol=1 / 255)
    drawn = (
        heads.nth(4)
        .locator("canvas")
        .evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    )
    reds = np.array(drawn).reshape(len(WRITTEN), len(SOURCE), 4)[..., 0]
    assert (reds.argmin(-1) == maps["cross"][1, 1].argmax(-1)).all()  # the more, the darker


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_or_as_chosen(page, scheme):
    page.emulate_media(color_scheme=scheme)
    ground = "getComputedStyle(document.body).backgroundColor"
    assert (
        page.evaluate(ground) == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
    )
    other = {"light": "dark", "dark": "light"}[scheme]
    before = page.evaluate(ground)
    page.locator("#theme").select_option(other)
    assert page.evaluate(ground) != before


def test_nothing_in_the_text_can_end_the_script():
    assert not set("<>&\u2028") & set(json_in_html({"text": TEXT}))
