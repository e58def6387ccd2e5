"""The served page in a browser: type on the left, read on the right."""

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
def page(opened, url):
    opened.goto(url)
    yield opened
    assert opened.said == []
    assert all(asked.startswith(url) for asked in opened.asked)


def translated(page, text):
    with page.expect_response(lambda response: response.url.endswith("/translate")) as answer:
        page.locator("#input").fill(text)
    page.wait_for_selector("#output[aria-busy='false'] .target")
    return answer.value.json()["translations"]


def test_what_is_typed_is_read(page):
    first, empty, last = translated(page, "red cat\n\ntwo dog <b>one</b>")
    lines = page.locator("#output .target")
    assert lines.count() == 2 and empty["text"] == ""
    assert [lines.nth(i).text_content() for i in (0, 1)] == [first["text"], last["text"]]
    sources = page.locator("#output .source")
    assert sources.nth(1).text_content() == "two dog <b>one</b>"
    with page.expect_response(lambda response: response.url.endswith("/translate")):
        page.locator("#input").fill("green cat")
    expect(lines).to_have_count(1)


def test_the_languages_are_named(page):
    translated(page, "red cat")
    expect(page.locator("h1")).to_have_text("Translate English to German")
    assert page.title() == "Translate English to German"
    assert page.locator("#input").get_attribute("lang") == "en"
    assert page.locator("#output .target").get_attribute("lang") == "de"
    page.evaluate("entitle('pt-BR', 'no such code')")
    expect(page.locator("h1")).to_have_text("Translate Brazilian Portuguese to no such code")


def test_a_word_shows_what_it_is_aligned_with_both_ways(page):
    (found,) = translated(page, "red cat one")

    def owners(pieces):  # piece -> its word, as SentencePiece marks words
        return [
            sum(p.startswith("\u2581") for p in pieces[: i + 1]) - 1 for i in range(len(pieces))
        ]

    read, written = owners(found["source"]), owners(found["tokens"])
    ends = len(found["source"]) - 1, len(found["tokens"]) - 1
    links = {(read[s], written[t]) for s, t in found["alignment"] if s != ends[0] and t != ends[1]}
    assert links
    for side, other, pairs in (
        ("target", "source", {(t, s) for s, t in links}),
        ("source", "target", links),
    ):
        words = page.locator(f"#output .{side} .word")
        for number in range(words.count()):
            words.nth(number).hover()
            lit = page.locator(f"#output .{other} .word").evaluate_all(
                "all => all.flatMap((w, i) => w.classList.contains('lit') ? [i] : [])"
            )
            assert set(lit) == {b for a, b in pairs if a == number}
    page.mouse.move(0, 0)
    assert page.locator(".lit").count() == page.locator(".chosen").count() == 0
    page.locator("#output .target .word").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#output .target .word").nth(1).get_attribute("class") == "word chosen"


def test_an_alternative_can_be_read_instead(page):
    (found,) = translated(page, "two red cat")
    buttons = page.locator("#output ol button")
    assert buttons.count() == len(found["n_best"]) == 2
    for button, each in zip(buttons.all(), found["n_best"], strict=True):
        assert each["text"] in button.text_content()
        assert f"{each['score']:.2f}" in button.text_content()
    buttons.nth(1).click()
    assert page.locator("#output .target").text_content() == found["n_best"][1]["text"]
    assert buttons.nth(1).get_attribute("aria-pressed") == "true"


def test_what_is_refused_is_told(page):
    page.locator("#input").fill("dog " * 400)
    expect(page.locator("#status")).to_contain_text("more than")
    (line,) = page.said  # the browser's own, of a status that is an error
    assert re.search("status of 422", line)
    page.said.clear()
    assert translated(page, "red cat")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_or_as_chosen(page, scheme):
    page.emulate_media(color_scheme=scheme)
    ground = "getComputedStyle(document.body).backgroundColor"
    shown = {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}
    assert page.evaluate(ground) == shown[scheme]
    other = {"light": "dark", "dark": "light"}[scheme]
    page.locator("#theme").select_option(other)
    assert page.evaluate(ground) == shown[other]
