"""The server in process: batching, queueing, timeouts and disconnects."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from starlette.testclient import TestClient

from decode.options import InputError
from serve.app import Service
from tests.experiments.serving import LIMITS, make_client, metric_value, wait_until

HOST = "http://localhost"


class WaitingSearches:
    """Searches that wait until `proceed` is set, and record their batches."""

    def __init__(self, searches):
        self._searches, self.proceed, self.started = searches, threading.Event(), threading.Event()
        self.beam_sizes, self.trained = searches.beam_sizes, searches.trained
        self.max_batch_size = searches.max_batch_size
        self.batches = []

    def answer(self, beam_size, requests):
        self.started.set()
        assert self.proceed.wait(60)
        self.batches.append((beam_size, [request.texts for request in requests]))
        return self._searches.answer(beam_size, requests)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proceed.set()  # let the server end after a failure


def test_concurrent_requests_are_batched_into_one_search(searches):
    waiting = WaitingSearches(searches)
    words = ["red", "green", "one", "cat"]  # one full batch
    limits = replace(LIMITS, queue=20)
    with make_client(waiting, limits) as client, ThreadPoolExecutor(16) as pool, waiting:

        def ask(text, **fields):
            return pool.submit(client.post, "/translate", json={"text": text} | fields)

        wait_until(lambda: client.get("/health").status_code == 200)
        first = ask("red cat")
        assert waiting.started.wait(60)
        others = [ask(word, n_best=1 + n % 2) for n, word in enumerate(words)]
        wait_until(lambda: metric_value(client, "heed_queue_requests") == len(words))
        narrow = ask(["one dog", "two dog"], beam_size=1)
        wait_until(lambda: metric_value(client, "heed_queue_requests") == len(words) + 1)
        waiting.proceed.set()
        responses = [job.result().json()["translations"] for job in (first, *others, narrow)]
        shapes = [beam for beam, _ in waiting.batches]
        assert sorted(shapes) == [1, 2, 2]  # the first request, the waiting ones, another beam size
        assert max(len(texts) for _, texts in waiting.batches) == len(words)
        assert metric_value(client, "heed_batch_requests_sum") == 6
        assert metric_value(client, "heed_batch_texts_sum") == 7
        assert metric_value(client, "heed_batch_requests_count") == 3
        for translations, text in zip(
            responses, [["red cat"], *([w] for w in words)], strict=False
        ):
            single = client.post("/translate", json={"text": text}).json()["translations"]
            assert [a["text"] for a in translations] == [a["text"] for a in single]
        assert [len(translations[0]["n_best"]) for translations in responses[1:-1]] == [1, 2] * 2
        assert len(responses[-1]) == 2
        lines = [x for x in client.get("/metrics").text.splitlines() if 'status="200"' in x]
        assert 'heed_requests_total{path="/translate",status="200"} 11.0' in lines


def test_a_full_queue_and_a_timeout_are_reported(searches):
    waiting = WaitingSearches(searches)
    limits = replace(LIMITS, queue=1, seconds=1.0)
    with make_client(waiting, limits) as client, ThreadPoolExecutor(3) as pool, waiting:
        wait_until(lambda: client.get("/health").status_code == 200)
        first = pool.submit(client.post, "/translate", json={"text": "red"})
        assert waiting.started.wait(60)
        second = pool.submit(client.post, "/translate", json={"text": "green"})
        wait_until(lambda: metric_value(client, "heed_queue_requests") == 1)
        full = client.post("/translate", json={"text": "one"})
        assert full.status_code == 503 and full.headers["Retry-After"] == "1"
        for late in first.result(), second.result():
            assert late.status_code == 504 and "within 1 seconds" in late.json()["error"]
        assert metric_value(client, "heed_queue_requests") == 0  # timed-out ones are removed
        waiting.proceed.set()
        wait_until(lambda: waiting.batches)
        assert client.post("/translate", json={"text": "two"}).status_code == 200
        assert waiting.batches == [(2, [("red",)]), (2, [("two",)])]


async def post(app, *messages):
    """The status for a client that sends these ASGI messages and then stays connected.

    Functions among the messages are polled until they return true.
    """
    messages, sent = list(messages), []

    async def receive():
        while messages:
            if not callable(messages[0]):
                return messages.pop(0)
            while not messages[0]():
                await asyncio.sleep(0.005)
            messages.pop(0)
        return await asyncio.Future()

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = dict(type="http", method="POST", path="/translate", headers=headers, query_string=b"")
    await asyncio.wait_for(app(scope, receive, send), 20)
    return sent[0]["status"]


def body_message(body, more):
    return {"type": "http.request", "body": body, "more_body": more}


DISCONNECT = {"type": "http.disconnect"}


def test_an_incomplete_body_times_out(searches):
    app = Service(searches, replace(LIMITS, seconds=0.2)).app()
    assert asyncio.run(post(app, body_message(b'{"text":', True))) == 408
    assert asyncio.run(post(app, body_message(b'{"text":', True), DISCONNECT)) == 499


def test_requests_of_disconnected_clients_are_not_searched(searches):
    waiting = WaitingSearches(searches)
    service = Service(waiting, LIMITS)
    app = service.app()
    with TestClient(app, base_url=HOST) as client, ThreadPoolExecutor(1) as pool, waiting:
        wait_until(lambda: client.get("/health").status_code == 200)
        first = pool.submit(client.post, "/translate", json={"text": "red"})
        assert waiting.started.wait(60)
        queued = lambda: service.batcher.waiting() == 1  # noqa: E731
        messages = body_message(b'{"text": "cat"}', False), queued, DISCONNECT
        assert asyncio.run(post(app, *messages)) == 499
        assert service.batcher.waiting() == 0
        waiting.proceed.set()
        assert first.result().status_code == 200
    assert waiting.batches == [(2, [("red",)])]


def test_a_failing_request_does_not_affect_others(searches):
    class FailingSearches(WaitingSearches):
        def answer(self, beam_size, requests):
            answers = super().answer(beam_size, requests)
            if any("cat" in request.texts for request in requests):
                raise InputError("line 1: no output has a finite score")
            if any("dog" in request.texts for request in requests):
                raise RuntimeError("a bug")
            return answers

    failing, jobs = FailingSearches(searches), {}
    app = Service(failing, replace(LIMITS, queue=9)).app()
    with TestClient(app, base_url=HOST) as client, ThreadPoolExecutor(5) as pool, failing:
        wait_until(lambda: client.get("/health").status_code == 200)
        for text in "two", "red", "cat", "dog", "one":
            jobs[text] = pool.submit(client.post, "/translate", json={"text": text})
            assert failing.started.wait(60)
        wait_until(lambda: metric_value(client, "heed_queue_requests") == 4)
        failing.proceed.set()
        answers = {text: job.result() for text, job in jobs.items()}
    assert {text: answer.status_code for text, answer in answers.items()} == {
        "two": 200, "red": 200, "cat": 422, "dog": 500, "one": 200,
    }  # fmt: skip
    assert "finite score" in answers["cat"].json()["error"] and "error" in answers["dog"].json()
