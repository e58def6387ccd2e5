"""The server in process: what goes together, what waits, and who leaves."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from starlette.testclient import TestClient

from decode.options import InputError
from serve.app import Service
from tests.experiments.serving import LIMITS, client, told, until

HOST = "http://localhost"


class Held:
    """The same searches, but each waits until it may; it notes what went together."""

    def __init__(self, searches):
        self._searches, self.may, self.begun = searches, threading.Event(), threading.Event()
        self.beams, self.trained = searches.beams, searches.trained
        self.max_batch_size = searches.max_batch_size
        self.together = []

    def answer(self, beam_size, asked):
        self.begun.set()
        assert self.may.wait(60)
        self.together.append((beam_size, [each.texts for each in asked]))
        return self._searches.answer(beam_size, asked)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.may.set()  # whatever failed, so that the server can end


def test_requests_that_come_together_are_one_search(searches):
    held = Held(searches)
    words = ["red", "green", "one", "cat"]  # as many as go into one batch
    limits = replace(LIMITS, queue=20)
    with client(held, limits) as there, ThreadPoolExecutor(16) as pool, held:

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
    with client(held, limits) as there, ThreadPoolExecutor(3) as pool, held:
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
    await asyncio.wait_for(app(scope, receive, send), 20)
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
    with TestClient(app, base_url=HOST) as there, ThreadPoolExecutor(1) as pool, held:
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
    quiet = TestClient(app, base_url=HOST)
    with quiet as there, ThreadPoolExecutor(5) as pool, spoiled:
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
