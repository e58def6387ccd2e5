"""The server in process: cross-site requests, panics of libraries, slow tokenization."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from serve import http_server
from serve.hosts import client_key, is_loopback
from tests.experiments.serving import LIMITS, Echo, make_client, wait_until


class PanicException(BaseException):
    """Like pyo3's exception for a panic in Rust."""


def wait_until_ready(client):
    wait_until(lambda: client.get("/health").status_code == 200)


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
def test_unknown_hosts_and_foreign_origins_are_rejected(headers, status):
    with make_client(Echo(), allowed_hosts=["heed.example.org"]) as client:
        wait_until_ready(client)
        answer = client.post("/translate", json={"text": "a"}, headers=headers)
        assert answer.status_code == status
        if status != 200:
            assert "--allowed_hosts" in answer.json()["error"]


def test_a_star_allows_all_hosts_and_a_trailing_slash_is_not_found():
    with make_client(Echo(), allowed_hosts=["*"]) as client:
        wait_until_ready(client)
        request = dict(
            json={"text": "a"}, headers={"Host": "a.example", "Origin": "http://b.example"}
        )
        assert client.post("/translate", **request).status_code == 200
        assert client.post("/translate/", **request, follow_redirects=False).status_code == 404


def test_clients_are_distinguished_by_address():
    assert client_key("10.0.0.1") != client_key("10.0.0.2")
    assert client_key("::ffff:10.0.0.1") != client_key("::ffff:10.0.0.2")
    assert client_key("2001:db8::1") == client_key("2001:db8::2") != client_key("2001:db8:0:1::1")
    assert client_key("fe80::1%eth0") and client_key("testclient") == "testclient"
    assert is_loopback("127.0.0.9") and is_loopback("::1") and not is_loopback("0.0.0.0")


@pytest.mark.parametrize("size", [1, 3000])  # tokenized by the event loop, and by a thread
def test_a_panic_in_a_tokenizer_fails_only_one_request(size, capfd):
    echo = Echo()
    split = echo.trained.vocabulary.source.encode

    def encode(texts):
        if "x" in texts[0]:
            raise PanicException("regular expression:\nretry \x1b limit")
        return split(texts)

    echo.trained.vocabulary.source = SimpleNamespace(encode=encode)
    with make_client(echo) as client:
        wait_until_ready(client)
        answer = client.post("/translate", json={"text": "x" * size})
        assert answer.status_code == 500 and "internal server error" in answer.json()["error"]
        assert client.post("/translate", json={"text": "a"}).status_code == 200
        assert 'status="500"' in client.get("/metrics").text
    _, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert "POST /translate failed: PanicException: regular expression: retry ? limit (" in line


def test_a_panic_in_a_search_fails_only_one_request(capfd):
    class PanickingSearches(Echo):
        def answer(self, beam_size, requests):
            if requests[0].texts == ("x",):
                raise PanicException("a decoder")
            return super().answer(beam_size, requests)

    with make_client(PanickingSearches()) as client:
        wait_until_ready(client)
        assert client.post("/translate", json={"text": "x"}).status_code == 500
        assert client.post("/translate", json={"text": "a"}).status_code == 200
        assert client.get("/health").json()["status"] == "ready"
    (line,) = capfd.readouterr().err.splitlines()
    assert "SearchError: PanicException: a decoder" in line


def test_a_dead_search_thread_fails_the_server():
    class BrokenSearches(Echo):
        def answer(self, beam_size, requests):
            return []

    failed = threading.Event()
    with make_client(BrokenSearches(), on_failure=failed.set) as client:
        wait_until_ready(client)
        answer = client.post("/translate", json={"text": "a"})
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        health = client.get("/health")
        assert health.status_code == 503 and health.json()["status"] == "failed"
        assert failed.is_set()
        assert client.post("/translate", json={"text": "a"}).status_code == 503


def test_slow_tokenization_times_out_and_delays_no_other_request():
    echo, proceed = Echo(), threading.Event()
    split = echo.trained.vocabulary.source.encode

    def encode(texts):
        if len(texts[0]) > 2000:
            assert proceed.wait(60)
        return split(texts)

    echo.trained.vocabulary.source = SimpleNamespace(encode=encode)
    with make_client(echo, replace(LIMITS, seconds=0.3)) as client:
        wait_until_ready(client)
        start = time.monotonic()
        for _ in range(5):  # more than are tokenized concurrently
            late = client.post("/translate", json={"text": "x" * 3000})
            assert late.status_code == 504
        assert client.post("/translate", json={"text": "a"}).status_code == 200
        assert time.monotonic() - start < 20
        proceed.set()


def test_texts_that_exceed_the_token_limit_are_rejected_before_tokenization():
    echo = Echo()
    echo.trained.vocabulary.source = SimpleNamespace(encode=lambda texts: pytest.fail("tokenized"))
    with make_client(echo, replace(LIMITS, body=1 << 20)) as client:
        wait_until_ready(client)
        for text in "x" * 9601, [""] * 301:
            answer = client.post("/translate", json={"text": text})
            assert answer.status_code == 422 and "300 tokens" in answer.json()["error"]


def test_a_stuck_server_is_forced_to_exit(monkeypatch):
    exited, server = threading.Event(), SimpleNamespace(should_exit=False)
    messages = []

    def exit_now(status, message):
        messages.append((status, message))
        exited.set()

    monkeypatch.setattr(http_server, "exit_now", exit_now)
    http_server.force_exit(server, 0.05)
    assert not exited.wait(0.3)
    server.should_exit = True
    assert exited.wait(20) and messages == [
        (1, "heed: error: no shutdown within 0.05 seconds: a request is stuck")
    ]


def test_connections_are_limited_by_open_files(monkeypatch):
    def set_limits(soft, hard):
        monkeypatch.setattr(http_server.resource, "getrlimit", lambda _: (soft, hard))

    new_limits = []
    monkeypatch.setattr(http_server.resource, "setrlimit", lambda _, pair: new_limits.append(pair))
    for soft, hard, expected, raised in (
        (2000, 4000, 1000, []),
        (1024, 4000, 1000, [(1064, 4000)]),
        (1024, -1, 1000, [(1064, -1)]),
        (256, 512, 448, [(512, 512)]),
        (-1, -1, 1000, []),
    ):
        new_limits.clear()
        set_limits(soft, hard)
        assert http_server.allowed_connections(1000) == expected and new_limits == raised
