"""The server in process: what it answers, with which status, and what goes together."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from decode.options import InputError, SearchOptions
from experiments.answers import answers
from experiments.serving.app import Service
from experiments.serving.limits import Limits
from tests.experiments.serving import LIMITS, small_searches

TEXTS = [
    "red cat",
    "",
    "two dog one",
    "green dog red cat one two dog red cat",
    "é \u2581 😀",
    "dog",
]


@pytest.fixture(scope="module")
def searches(run):
    workdir, *_ = run
    made = small_searches(workdir)
    made.prepare()
    return made


class Held:
    """The same searches, but each waits until it may; it notes what went together."""

    def __init__(self, searches):
        self._searches, self.may, self.begun = searches, threading.Event(), threading.Event()
        self.beams, self.most, self.trained = searches.beams, searches.most, searches.trained
        self.together = []

    def answer(self, beam_size, asked):
        self.begun.set()
        assert self.may.wait(60)
        self.together.append((beam_size, [each.texts for each in asked]))
        return self._searches.answer(beam_size, asked)


@contextmanager
def client(searches, limits=LIMITS, **options):
    with TestClient(Service(searches, limits, **options).app()) as there:
        yield there


@pytest.fixture(scope="module")
def served(searches):
    with client(searches) as there:
        while there.get("/health").status_code != 200:
            time.sleep(0.01)
        yield there


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def told(there, name):
    (line,) = (x for x in there.get("/metrics").text.splitlines() if x.startswith(f"{name} "))
    return float(line.split()[-1])


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
    options = SearchOptions(extra_length=5, beam_size=beam_size, n_best=n_best)
    offline = searches._translators[2].with_options(options)  # in the shapes of a command
    expected = answers(offline.hypotheses(TEXTS), trained)
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
    assert shapes[2] == before[2] and len(shapes[2]) == len(translator.ladder)
    assert translator._search._cache_size() == len(translator.ladder)


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
        (b'{"text": "\\ud800"}', 400, "field text: has half a surrogate pair"),
        (b'{"text": "a", "n_best": "2"}', 400, "field n_best: must be a whole number"),
        (b'{"text": "a", "n_best": true}', 400, "field n_best: must be a whole number"),
        (b'{"text": "a", "n_best": 0}', 400, "field n_best: 0 must be from 1 to 2"),
        (b'{"text": "a", "n_best": 3}', 400, "field n_best: 3 must be from 1 to 2"),
        (b'{"text": "a", "beam_size": 7}', 400, "field beam_size: 7 is not served here, but 2, 1"),
        (b'{"text": "a", "alignment": 1}', 400, "field alignment: must be true or false"),
        (b'{"text": "a", "beam": 1}', 400, "field 'beam' is unknown: did you mean beam_size?"),
        (json.dumps({"text": "dog " * 500}).encode(), 422, "are more than the 300 that are taken"),
        (json.dumps({"text": [""] * 301}).encode(), 422, "301 tokens are more than the 300"),
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


def test_requests_that_come_together_are_one_search(searches):
    held = Held(searches)
    words = ["red", "green", "one", "cat"]  # as many as go into one batch
    with client(held, replace(LIMITS, queue=20)) as there, ThreadPoolExecutor(16) as pool:

        def ask(text, **more):
            return pool.submit(there.post, "/translate", json={"text": text} | more)

        until(lambda: there.get("/health").status_code == 200)
        first = ask("red cat")
        assert held.begun.wait(60)
        rest = [ask(word, n_best=1 + n % 2) for n, word in enumerate(words)]
        until(lambda: told(there, "heed_queue_requests") == len(words))
        narrow = ask(["one dog", "two dog"], beam_size=1)
        until(lambda: told(there, "heed_queue_requests") == len(words) + 1)
        held.may.set()
        found = [job.result().json()["translations"] for job in (first, *rest, narrow)]
        shapes = [beam for beam, _ in held.together]
        assert sorted(shapes) == [1, 2, 2]  # of six requests: one, those that waited, another beam
        assert max(len(texts) for _, texts in held.together) == len(words)
        assert told(there, "heed_batch_requests_sum") == 6
        assert told(there, "heed_batch_texts_sum") == 7
        assert told(there, "heed_batch_requests_count") == 3
        for each, text in zip(found, [["red cat"], *([w] for w in words)], strict=False):
            alone = there.post("/translate", json={"text": text}).json()["translations"]
            assert [a["text"] for a in each] == [a["text"] for a in alone]
        assert [len(each[0]["n_best"]) for each in found[1:-1]] == [1, 2] * 2
        assert len(found[-1]) == 2
        counted = [x for x in there.get("/metrics").text.splitlines() if 'status="200"' in x]
        assert 'heed_requests_total{path="/translate",status="200"} 11.0' in counted


def test_a_full_queue_and_a_late_answer_are_told(searches):
    held = Held(searches)
    limits = replace(LIMITS, queue=1, seconds=1.0)
    with client(held, limits) as there, ThreadPoolExecutor(3) as pool:
        until(lambda: there.get("/health").status_code == 200)
        first = pool.submit(there.post, "/translate", json={"text": "red"})
        assert held.begun.wait(60)
        second = pool.submit(there.post, "/translate", json={"text": "green"})
        until(lambda: told(there, "heed_queue_requests") == 1)
        full = there.post("/translate", json={"text": "one"})
        assert full.status_code == 503 and full.headers["Retry-After"] == "1"
        for late in first.result(), second.result():
            assert late.status_code == 504 and "within 1 seconds" in late.json()["error"]
        assert told(there, "heed_queue_requests") == 0  # what was late is not searched for
        held.may.set()
        until(lambda: held.together)
        assert there.post("/translate", json={"text": "two"}).status_code == 200
        assert held.together == [(2, [("red",)]), (2, [("two",)])]


async def post(app, *coming):
    """The status for a client that sends these messages of ASGI and then neither more nor leaves.

    A function among them is waited for to be true.
    """
    coming, sent = list(coming), []

    async def receive():
        while coming:
            if not callable(coming[0]):
                return coming.pop(0)
            while not coming[0]():
                await asyncio.sleep(0.005)
            coming.pop(0)
        return await asyncio.Future()

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = dict(type="http", method="POST", path="/translate", headers=headers, query_string=b"")
    await asyncio.wait_for(app(scope, receive, send), 60)
    return sent[0]["status"]


def part(body, more):
    return {"type": "http.request", "body": body, "more_body": more}


LEFT = {"type": "http.disconnect"}


def test_a_body_that_does_not_come_is_not_waited_for(searches):
    app = Service(searches, replace(LIMITS, seconds=0.2)).app()
    assert asyncio.run(post(app, part(b'{"text":', True))) == 408
    assert asyncio.run(post(app, part(b'{"text":', True), LEFT)) == 499


def test_nobody_searches_for_who_has_left(searches):
    held = Held(searches)
    service = Service(held, LIMITS)
    app = service.app()
    with TestClient(app) as there, ThreadPoolExecutor(1) as pool:
        until(lambda: there.get("/health").status_code == 200)
        first = pool.submit(there.post, "/translate", json={"text": "red"})
        assert held.begun.wait(60)
        queued = lambda: service.batcher.waiting() == 1  # noqa: E731
        assert asyncio.run(post(app, part(b'{"text": "cat"}', False), queued, LEFT)) == 499
        assert service.batcher.waiting() == 0
        held.may.set()
        assert first.result().status_code == 200
    assert held.together == [(2, [("red",)])]


def test_one_requests_mistake_is_its_own(searches):
    class Spoiled(Held):
        def answer(self, beam_size, asked):
            found = super().answer(beam_size, asked)
            if any("cat" in each.texts for each in asked):
                raise InputError("line 1: no output has a finite score")
            if any("dog" in each.texts for each in asked):
                raise RuntimeError("a bug")
            return found

    spoiled, codes = Spoiled(searches), {}
    app = Service(spoiled, replace(LIMITS, queue=9)).app()
    with TestClient(app, raise_server_exceptions=False) as there, ThreadPoolExecutor(5) as pool:
        until(lambda: there.get("/health").status_code == 200)
        for text in "two", "red", "cat", "dog", "one":
            codes[text] = pool.submit(there.post, "/translate", json={"text": text})
            assert spoiled.begun.wait(60)
        until(lambda: told(there, "heed_queue_requests") == 4)
        spoiled.may.set()
        found = {text: job.result() for text, job in codes.items()}
    assert {text: answer.status_code for text, answer in found.items()} == {
        "two": 200, "red": 200, "cat": 422, "dog": 500, "one": 200,
    }  # fmt: skip
    assert "finite score" in found["cat"].json()["error"] and "error" in found["dog"].json()


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


def test_the_page_refers_to_nothing_elsewhere(served):
    answer = served.get("/")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in answer.text and "https://" not in answer.text


def test_the_defaults_take_a_long_page():
    assert Limits().tokens >= 2000 and Limits().body > 10 * Limits().tokens
