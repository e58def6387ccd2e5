"""The translator page of the server, in a browser."""

import re
import threading
import time

import pytest
import uvicorn
from playwright.sync_api import expect

from serve.app import Service
from tests.experiments.serving import LIMITS, small_searches


@pytest.fixture(scope="module")
def url(run):
    workdir, *_ = run
    service = Service(small_searches(workdir), LIMITS)
    service.searches.precompile()
    config = uvicorn.Config(service.app(), port=0, ws="none", log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not (server.started and service.batcher.ready.is_set()):
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(new_page, url):
    new_page.goto(url)
    yield new_page
    assert new_page.messages == []
    assert new_page.requests
    assert all(request.startswith(url) for request in new_page.requests)


def translated(page, text):
    with page.expect_response(
        lambda response: response.url.endswith("/translate")
    ) as response_info:
        page.locator("#input").fill(text)
    page.wait_for_selector("#output[aria-busy='false'] .target")
    return response_info.value.json()["translations"]


def test_typed_lines_are_translated(page):
    first, empty, last = translated(page, "red cat\n\ntwo dog <b>one</b>")
    lines = page.locator("#output .target")
    assert lines.count() == 2 and empty["text"] == ""
    assert [lines.nth(i).text_content() for i in (0, 1)] == [first["text"], last["text"]]
    sources = page.locator("#output .source")
    assert sources.nth(1).text_content() == "two dog <b>one</b>"
    with page.expect_response(lambda response: response.url.endswith("/translate")):
        page.locator("#input").fill("green cat")
    expect(lines).to_have_count(1)


def test_the_page_names_the_languages(page):
    translated(page, "red cat")
    expect(page.locator("h1")).to_have_text("Translate English to German")
    assert page.title() == "Translate English to German"
    assert page.locator("#input").get_attribute("lang") == "en"
    assert page.locator("#output .target").get_attribute("lang") == "de"
    page.evaluate("setLanguages('pt-BR', 'no such code')")
    expect(page.locator("h1")).to_have_text("Translate Brazilian Portuguese to no such code")


def test_hovering_over_a_word_shows_its_alignment_in_both_directions(page):
    (translation,) = translated(page, "red cat one")

    def word_indices(pieces):  # word index of each SentencePiece token
        return [
            sum(p.startswith("\u2581") for p in pieces[: i + 1]) - 1 for i in range(len(pieces))
        ]

    source_words, target_words = (word_indices(translation[key]) for key in ("source", "tokens"))
    eos = len(translation["source"]) - 1, len(translation["tokens"]) - 1
    links = {
        (source_words[s], target_words[t])
        for s, t in translation["alignment"]
        if s != eos[0] and t != eos[1]
    }
    assert links
    for side, other, pairs in (
        ("target", "source", {(t, s) for s, t in links}),
        ("source", "target", links),
    ):
        words = page.locator(f"#output .{side} .word")
        for number in range(words.count()):
            words.nth(number).hover()
            highlighted = page.locator(f"#output .{other} .word").evaluate_all(
                "all => all.flatMap((w, i) => w.classList.contains('lit') ? [i] : [])"
            )
            assert set(highlighted) == {b for a, b in pairs if a == number}
    page.mouse.move(0, 0)
    assert page.locator(".lit").count() == page.locator(".chosen").count() == 0
    page.locator("#output .target .word").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#output .target .word").nth(1).get_attribute("class") == "word chosen"


def test_an_alternative_translation_can_be_selected(page):
    (translation,) = translated(page, "two red cat")
    buttons = page.locator("#output ol button")
    assert buttons.count() == len(translation["n_best"]) == 2
    for button, hypothesis in zip(buttons.all(), translation["n_best"], strict=True):
        assert hypothesis["text"] in button.text_content()
        assert f"{hypothesis['score']:.2f}" in button.text_content()
    buttons.nth(1).click()
    assert page.locator("#output .target").text_content() == translation["n_best"][1]["text"]
    assert buttons.nth(1).get_attribute("aria-pressed") == "true"


def test_a_rejected_request_is_shown(page):
    page.locator("#input").fill("dog " * 400)
    expect(page.locator("#status")).to_contain_text("exceed")
    (line,) = page.messages  # the browser's own message about the error status
    assert re.search("status of 422", line)
    page.messages.clear()
    assert translated(page, "red cat")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_color_scheme_follows_the_system_or_the_selection(page, scheme):
    page.emulate_media(color_scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor"
    shown = {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}
    assert page.evaluate(background) == shown[scheme]
    other = {"light": "dark", "dark": "light"}[scheme]
    page.locator("#theme").select_option(other)
    assert page.evaluate(background) == shown[other]
