"""The server in process: what it answers, and with which status."""

import json
import threading
import time

import numpy as np
import pytest

from decode.options import SearchOptions
from experiments.json_output import hypotheses_to_json
from serve.limits import Limits
from tests.experiments.serving import client, until

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
    with client(searches) as there:
        while there.get("/health").status_code != 200:
            time.sleep(0.01)
        yield there


def same(one, other):
    assert one.keys() == other.keys()
    for name in one.keys() - {"n_best", "score", "token_scores"}:
        assert json.dumps(one[name]) == json.dumps(other[name]), name
    for name in "score", "token_scores":
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)


@pytest.mark.parametrize("beam_size", [1, 2])
def test_answers_are_those_of_translation_offline(searches, served, beam_size):
    trained = searches.trained
    n_best = beam_size
    options = SearchOptions(max_length_offset=5, beam_size=beam_size, n_best=n_best)
    offline = searches._translators[2].with_options(options)  # in the shapes of a command
    expected = hypotheses_to_json(offline.hypotheses(TEXTS), trained)
    asked = {"text": TEXTS, "n_best": n_best, "beam_size": beam_size}
    answer = served.post("/translate", json=asked)
    assert answer.status_code == 200
    found = answer.json()["translations"]
    assert len(found) == len(TEXTS) and found[1]["text"] == ""
    for one, other in zip(found, expected, strict=True):
        same(one, other)
        for left, right in zip(one["n_best"], other["n_best"], strict=True):
            same(left, right)
    alone = {"text": TEXTS[3], "beam_size": beam_size}
    (alone,) = served.post("/translate", json=alone).json()["translations"]
    assert len(alone["n_best"]) == 1
    same(alone, expected[3])
    plain = served.post("/translate", json=asked | {"alignment": False}).json()["translations"]
    assert [each["text"] for each in plain] == [each["text"] for each in found]
    assert all("alignment" in each for each in found)
    assert not any("alignment" in each for each in plain)


def test_nothing_is_compiled_for_a_request(searches, served):
    before = {beam: set(t.shapes) for beam, t in searches._translators.items()}
    long = " ".join(["red cat two dog"] * 6)  # searched for in pieces
    for texts in [["dog"], ["dog"] * 9, [long], [long] * 2]:
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
        (b'{"text": "a", "beam_size": 7}', 400, "field beam_size: 7 is not served here, but 2, 1"),
        (b'{"text": "a", "alignment": 1}', 400, "field alignment: must be true or false"),
        (b'{"text": "a", "beam": 1}', 400, "field 'beam' is unknown: did you mean beam_size?"),
        (json.dumps({"text": "dog " * 500}).encode(), 422, "are more than the 300 that are taken"),
        (json.dumps({"text": [""] * 301}).encode(), 422, "301 texts are more than the 300 tokens"),
        (b"null", 400, "not a JSON object"),
        (b'{"text": "a", "n_best": 1' + b"0" * 4500 + b"}", 400, "out of range"),
        (b'{"text": "a", "n_best": 1' + b"0" * 400 + b"}", 400, "field n_best: must be a whole"),
        (b'{"text": "a", "beam_size": 1e400}', 400, "out of range"),
        (b'{"text": "a", "beam_size": null}', 400, "field beam_size: must be a whole number"),
        (b'{"text": [["a"]]}', 400, "field text[0]: must be a string"),
        (b'{"text": ' + b"[" * 4000, 400, "the body is not JSON"),
        (b'{"text": "\xff"}', 400, "the body is not JSON"),
        (b'{"text": "\\udc00"}', 400, "the body is not JSON"),
        (b'{"\\n": 1}', 400, "field '\\n' is unknown: known are text"),
        (b'{"text": "' + b"a" * 5000 + b'"}', 413, "more than 5000 bytes"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(served, body, status, error):
    answer = served.post("/translate", content=body)
    assert answer.status_code == status and error in answer.json()["error"]
    assert served.post("/translate", json={"text": "red"}).status_code == 200


def test_other_paths_and_methods_are_refused_as_json(served):
    for method, path, status in ("GET", "/nothing", 404), ("GET", "/translate", 405):
        answer = served.request(method, path)
        assert answer.status_code == status and path in answer.json()["error"]
    assert served.post("/translate", json={"text": []}).json() == {"translations": []}


def test_it_is_not_ready_before_all_is_compiled(searches):
    compiled = threading.Event()
    with client(searches, begin=lambda: compiled.wait(60)) as there:
        assert there.get("/health").json()["status"] == "starting"
        early = there.post("/translate", json={"text": "red"})
        assert early.status_code == 503 and early.headers["Retry-After"]
        compiled.set()
        until(lambda: there.get("/health").status_code == 200)
        told = there.get("/health").json()
        assert told["beam_sizes"] == [2, 1] and told["n_best"] == 2
        assert told["languages"] == ["en", "de"]


def test_the_page_refers_to_nothing_elsewhere(served):
    answer = served.get("/")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in answer.text and "https://" not in answer.text


def test_the_defaults_take_a_long_page():
    assert Limits().tokens >= 2000 and Limits().body > 10 * Limits().tokens
