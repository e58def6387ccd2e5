"""The server in process: responses and status codes."""

import json
import threading
import time

import numpy as np
import pytest

from decode.options import SearchOptions
from experiments.json_output import hypotheses_to_json
from serve.limits import Limits
from tests.experiments.serving import make_client, wait_until

TEXTS = [
    "red cat",
    "",
    "two dog one",
    "green dog red cat one two dog red cat",
    "é \u2581 😀",
    "dog",
]


@pytest.fixture(scope="module")
def served(searches):
    with make_client(searches) as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.01)
        yield client


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left.keys() - {"n_best", "score", "token_scores"}:
        assert json.dumps(left[name]) == json.dumps(right[name]), name
    for name in "score", "token_scores":
        np.testing.assert_allclose(left[name], right[name], atol=1e-5)


@pytest.mark.parametrize("beam_size", [1, 2])
def test_responses_equal_offline_translation(searches, served, beam_size):
    trained = searches.trained
    n_best = beam_size
    options = SearchOptions(max_length_offset=5, beam_size=beam_size, n_best=n_best)
    offline = searches._translators[2].with_options(options)  # with the shapes of a command
    expected = hypotheses_to_json(offline.hypotheses(TEXTS), trained)
    request = {"text": TEXTS, "n_best": n_best, "beam_size": beam_size}
    response = served.post("/translate", json=request)
    assert response.status_code == 200
    translations = response.json()["translations"]
    assert len(translations) == len(TEXTS) and translations[1]["text"] == ""
    for translation, reference in zip(translations, expected, strict=True):
        assert_same(translation, reference)
        for hypothesis, reference_hypothesis in zip(
            translation["n_best"], reference["n_best"], strict=True
        ):
            assert_same(hypothesis, reference_hypothesis)
    single = {"text": TEXTS[3], "beam_size": beam_size}
    (single,) = served.post("/translate", json=single).json()["translations"]
    assert len(single["n_best"]) == 1
    assert_same(single, expected[3])
    plain = served.post("/translate", json=request | {"alignment": False}).json()["translations"]
    assert [t["text"] for t in plain] == [t["text"] for t in translations]
    assert all("alignment" in t for t in translations)
    assert not any("alignment" in t for t in plain)


def test_requests_compile_nothing(searches, served):
    before = {beam: set(t.shapes) for beam, t in searches._translators.items()}
    long_text = " ".join(["red cat two dog"] * 6)  # searched in segments
    for texts in [["dog"], ["dog"] * 9, [long_text], [long_text] * 2]:
        assert served.post("/translate", json={"text": texts}).status_code == 200
    shapes = {beam: set(t.shapes) for beam, t in searches._translators.items()}
    translator = searches._translators[2]
    assert shapes[2] == before[2] and len(shapes[2]) == len(translator.precompiled_shapes)
    assert translator._search._cache_size() == len(translator.precompiled_shapes)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b'{"text": "red', 400, "the body is not JSON"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b"[" * 4000, 400, "the body is not JSON"),
        (b"", 400, "the body is not JSON"),
        (b'["red"]', 400, "not a JSON object"),
        (b"{}", 400, "field text is missing"),
        (b'{"text": 3}', 400, "field text: must be a string or a list"),
        (b'{"text": ["red", null]}', 400, "field text[1]: must be a string"),
        (b'{"text": "red\\ncat"}', 400, "field text: has a line break"),
        (b'{"text": "\\ud800"}', 400, "the body is not JSON"),
        (b'{"text": "a", "n_best": "2"}', 400, "field n_best: must be a whole number"),
        (b'{"text": "a", "n_best": true}', 400, "field n_best: must be a whole number"),
        (b'{"text": "a", "n_best": 0}', 400, "field n_best: 0 must be from 1 to 2"),
        (b'{"text": "a", "n_best": 3}', 400, "field n_best: 3 must be from 1 to 2"),
        (b'{"text": "a", "beam_size": 7}', 400, "field beam_size: 7 is not served, only 2, 1"),
        (b'{"text": "a", "alignment": 1}', 400, "field alignment: must be true or false"),
        (b'{"text": "a", "beam": 1}', 400, "field 'beam' is unknown: did you mean beam_size?"),
        (json.dumps({"text": "dog " * 500}).encode(), 422, "tokens exceed the limit of 300"),
        (json.dumps({"text": [""] * 301}).encode(), 422, "301 texts exceed the limit of 300"),
        (b"null", 400, "not a JSON object"),
        (b'{"text": "a", "n_best": 1' + b"0" * 4500 + b"}", 400, "out of range"),
        (b'{"text": "a", "n_best": 1' + b"0" * 400 + b"}", 400, "field n_best: must be a whole"),
        (b'{"text": "a", "beam_size": 1e400}', 400, "out of range"),
        (b'{"text": "a", "beam_size": null}', 400, "field beam_size: must be a whole number"),
        (b'{"text": [["a"]]}', 400, "field text[0]: must be a string"),
        (b'{"text": ' + b"[" * 4000, 400, "the body is not JSON"),
        (b'{"text": "\xff"}', 400, "the body is not JSON"),
        (b'{"text": "\\udc00"}', 400, "the body is not JSON"),
        (b'{"\\n": 1}', 400, "field '\\n' is unknown: supported are text"),
        (b'{"text": "' + b"a" * 5000 + b'"}', 413, "more than 5000 bytes"),
    ],
)
def test_an_invalid_request_gets_an_error_message(served, body, status, error):
    answer = served.post("/translate", content=body)
    assert answer.status_code == status and error in answer.json()["error"]
    assert served.post("/translate", json={"text": "red"}).status_code == 200


def test_other_paths_and_methods_get_json_errors(served):
    for method, path, status in ("GET", "/nothing", 404), ("GET", "/translate", 405):
        answer = served.request(method, path)
        assert answer.status_code == status and path in answer.json()["error"]
    assert served.post("/translate", json={"text": []}).json() == {"translations": []}


def test_it_is_not_ready_before_compilation_ends(searches):
    compiled = threading.Event()
    with make_client(searches, on_start=lambda: compiled.wait(60)) as client:
        assert client.get("/health").json()["status"] == "starting"
        early = client.post("/translate", json={"text": "red"})
        assert early.status_code == 503 and early.headers["Retry-After"]
        compiled.set()
        wait_until(lambda: client.get("/health").status_code == 200)
        health = client.get("/health").json()
        assert health["beam_sizes"] == [2, 1] and health["n_best"] == 2
        assert health["languages"] == ["en", "de"]


def test_the_page_has_no_external_links(served):
    answer = served.get("/")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in answer.text and "https://" not in answer.text


def test_the_default_limits_allow_a_long_page():
    assert Limits().tokens >= 2000 and Limits().body > 10 * Limits().tokens
