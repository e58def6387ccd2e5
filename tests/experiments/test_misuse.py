"""The server in process: other sites, panics of libraries, and texts that take long to read."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from serve import http_server
from serve.hosts import client_key, is_loopback
from tests.experiments.serving import LIMITS, Echo, client, until


class PanicException(BaseException):
    """As pyo3's: a panic of a tokenizer written in Rust."""


def ready(there):
    until(lambda: there.get("/health").status_code == 200)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "127.0.0.1:80"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "192.168.1.2"}, 200),
        ({"Host": "heed.example.org:8000"}, 200),
        ({"Host": ""}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "["}, 421),
        ({"Origin": "http://localhost"}, 200),
        ({"Host": "localhost:80", "Origin": "https://localhost:80"}, 200),
        ({"Host": "10.0.0.1", "Origin": "https://heed.example.org"}, 200),
        ({"Origin": "http://localhost:9"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://heed.example.org.evil.example"}, 403),
    ],
)
def test_only_own_pages_under_known_names_are_answered(headers, status):
    with client(Echo(), allowed_hosts=["heed.example.org"]) as there:
        ready(there)
        answer = there.post("/translate", json={"text": "a"}, headers=headers)
        assert answer.status_code == status
        if status != 200:
            assert "--allowed_hosts" in answer.json()["error"]


def test_a_star_allows_all_hosts_and_a_slash_redirects_nowhere():
    with client(Echo(), allowed_hosts=["*"]) as there:
        ready(there)
        asked = dict(
            json={"text": "a"}, headers={"Host": "a.example", "Origin": "http://b.example"}
        )
        assert there.post("/translate", **asked).status_code == 200
        assert there.post("/translate/", **asked, follow_redirects=False).status_code == 404


def test_clients_are_told_apart_by_address():
    assert client_key("10.0.0.1") != client_key("10.0.0.2")
    assert client_key("::ffff:10.0.0.1") != client_key("::ffff:10.0.0.2")
    assert client_key("2001:db8::1") == client_key("2001:db8::2") != client_key("2001:db8:0:1::1")
    assert client_key("fe80::1%eth0") and client_key("testclient") == "testclient"
    assert is_loopback("127.0.0.9") and is_loopback("::1") and not is_loopback("0.0.0.0")


@pytest.mark.parametrize("size", [1, 3000])  # read by the event loop, and by a thread
def test_a_panic_in_a_tokenizer_is_one_requests_answer(size, capfd):
    echo = Echo()
    split = echo.trained.vocabulary.source.encode

    def encode(texts):
        if "x" in texts[0]:
            raise PanicException("regular expression:\nretry \x1b limit")
        return split(texts)

    echo.trained.vocabulary.source = SimpleNamespace(encode=encode)
    with client(echo) as there:
        ready(there)
        answer = there.post("/translate", json={"text": "x" * size})
        assert answer.status_code == 500 and "mistake of the server" in answer.json()["error"]
        assert there.post("/translate", json={"text": "a"}).status_code == 200
        assert 'status="500"' in there.get("/metrics").text
    _, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert "POST /translate failed: PanicException: regular expression: retry ? limit (" in line


def test_a_panic_in_a_search_is_one_requests_answer(capfd):
    class Panics(Echo):
        def answer(self, beam_size, asked):
            if asked[0].texts == ("x",):
                raise PanicException("a decoder")
            return super().answer(beam_size, asked)

    with client(Panics()) as there:
        ready(there)
        assert there.post("/translate", json={"text": "x"}).status_code == 500
        assert there.post("/translate", json={"text": "a"}).status_code == 200
        assert there.get("/health").json()["status"] == "ready"
    (line,) = capfd.readouterr().err.splitlines()
    assert "SearchError: PanicException: a decoder" in line


def test_a_dead_search_thread_is_told_and_ends_the_server():
    class Wrong(Echo):
        def answer(self, beam_size, asked):
            return []

    failed = threading.Event()
    with client(Wrong(), failed=failed.set) as there:
        ready(there)
        answer = there.post("/translate", json={"text": "a"})
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        health = there.get("/health")
        assert health.status_code == 503 and health.json()["status"] == "failed"
        assert failed.is_set()
        assert there.post("/translate", json={"text": "a"}).status_code == 503


def test_texts_that_take_long_to_read_delay_nobody_and_are_late():
    echo, may = Echo(), threading.Event()
    split = echo.trained.vocabulary.source.encode

    def encode(texts):
        if len(texts[0]) > 2000:
            assert may.wait(60)
        return split(texts)

    echo.trained.vocabulary.source = SimpleNamespace(encode=encode)
    with client(echo, replace(LIMITS, seconds=0.3)) as there:
        ready(there)
        start = time.monotonic()
        for _ in range(5):  # more than are read at a time
            late = there.post("/translate", json={"text": "x" * 3000})
            assert late.status_code == 504
        assert there.post("/translate", json={"text": "a"}).status_code == 200
        assert time.monotonic() - start < 20
        may.set()


def test_what_no_limit_of_tokens_allows_is_refused_before_it_is_tokenized():
    echo = Echo()
    echo.trained.vocabulary.source = SimpleNamespace(encode=lambda texts: pytest.fail("tokenized"))
    with client(echo, replace(LIMITS, body=1 << 20)) as there:
        ready(there)
        for text in "x" * 9601, [""] * 301:
            answer = there.post("/translate", json={"text": text})
            assert answer.status_code == 422 and "300 tokens" in answer.json()["error"]


def test_a_server_that_does_not_end_is_ended(monkeypatch):
    ended, server = threading.Event(), SimpleNamespace(should_exit=False)
    told = []

    def end(status, message):
        told.append((status, message))
        ended.set()

    monkeypatch.setattr(http_server, "leave", end)
    http_server.end_by_force(server, 0.05)
    assert not ended.wait(0.3)
    server.should_exit = True
    assert ended.wait(20) and told == [
        (1, "heed: error: not ended within 0.05 seconds: a request is stuck")
    ]


def test_connections_leave_room_for_other_open_files(monkeypatch):
    def limits(soft, hard):
        monkeypatch.setattr(http_server.resource, "getrlimit", lambda _: (soft, hard))

    new = []
    monkeypatch.setattr(http_server.resource, "setrlimit", lambda _, pair: new.append(pair))
    for soft, hard, most, raised in (
        (2000, 4000, 1000, []),
        (1024, 4000, 1000, [(1064, 4000)]),
        (1024, -1, 1000, [(1064, -1)]),
        (256, 512, 448, [(512, 512)]),
        (-1, -1, 1000, []),
    ):
        new.clear()
        limits(soft, hard)
        assert http_server.connections_at_most(1000) == most and new == raised
