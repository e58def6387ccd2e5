"""Adversarial clients: each case misbehaves and returns what happened."""

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from collections import Counter

from benchmarks.clients import Client

_MANY = 200
_CROWD = 1030  # connections: more than the server accepts
_GREEDY = 20
_HELD = 2.0  # seconds that the longer cases last


def killed(client: Client) -> str:
    """Clients that disconnect right after a request, half of them with a TCP reset."""
    body = json.dumps({"text": "one of many"}).encode()
    length = f"Content-Length: {len(body)}\r\n\r\n"
    head = f"POST /translate HTTP/1.1\r\nHost: localhost\r\n{length}".encode()
    for number in range(_MANY):
        with socket.create_connection((client.host, client.port)) as connection:
            connection.sendall(head + body)
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return f"{_MANY} were gone before their answers"


def killed_midway(client: Client) -> str:
    """Clients that disconnect in the middle of a request body."""
    head = b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(_MANY):
        with socket.create_connection((client.host, client.port)) as connection:
            connection.sendall(head + b'{"text": "half')
    return f"{_MANY} were gone amid their bodies"


def oversized(client: Client) -> str:
    """Bodies of 1 MB and 10 MB, and a chunked one of 1 MB without a Content-Length."""
    bodies = [b'{"text": "' + b"a" * size + b'"}' for size in (1_000_000, 10_000_000)]
    statuses = [client.ask("POST", "/translate", body)[0] for body in bodies]
    connection = client.connect()
    with contextlib.closing(connection):
        connection.request("POST", "/translate", iter([b"a" * 100_000] * 10), encode_chunked=True)
        return _count_statuses([*statuses, connection.getresponse().status])


def malformed(client: Client) -> str:
    """Bodies that are not valid requests: broken JSON, wrong types, unknown keys."""
    bodies = [b"", b"{", b'{"text": ', b"\xff\xfe", b"[" * 100_000, b"null", b'{"text": {}}']
    bodies += [b'{"text": "\\ud800"}', b'{"text": "a", "n_best": 1e9}', b'{"text": "a", "x": 1}']
    return _count_statuses([client.ask("POST", "/translate", body)[0] for body in bodies])


def long_inputs(client: Client) -> str:
    """Inputs of 10,000 words: one text, a list, and one word without a space."""
    texts = ["word " * 10_000, ["word"] * 10_000, "word" * 10_000, "\u4e2d" * 10_000]
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    return _count_statuses([client.ask("POST", "/translate", body)[0] for body in bodies])


def no_http(client: Client) -> str:
    """Bytes that are not an HTTP request."""
    with socket.create_connection((client.host, client.port), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01" * 1000 + b"\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = connection.recv(1000)
    return answer.decode(errors="replace").split("\r\n")[0] or "the connection was closed"


def silent(client: Client) -> str:
    """More connections than the server accepts, all of them silent."""
    return _crowd(client, b"")


def half_headers(client: Client) -> str:
    """More connections than the server accepts, each with half a header."""
    return _crowd(client, b"POST /translate HTTP/1.1\r\nHost: local")


def dripping(client: Client) -> str:
    """Connections that send their headers or their bodies byte by byte."""
    stop = time.monotonic() + _HELD
    with contextlib.ExitStack() as stack:
        connections = _open_connections(client, _MANY, stack)
        for number, connection in enumerate(connections):
            body = b"Host: localhost\r\nContent-Length: 1000\r\n\r\n{" if number % 2 else b""
            _send(connection, b"POST /translate HTTP/1.1\r\n" + body)
        waits = []
        while time.monotonic() < stop:
            for connection in connections:
                _send(connection, b"a")
            waits.append(_wait(client))
    return f"{_MANY} did, others waited {max(waits):.2f} s at most"


def endless_headers(client: Client) -> str:
    """A header line that never ends, and an endless number of headers."""
    results = []
    for chunk in b"a" * 65536, b"X: a\r\n" * 10000:
        with socket.create_connection(client.address, timeout=30) as connection:
            _send(connection, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            sent, stop = 0, time.monotonic() + _HELD
            with contextlib.suppress(OSError):
                while time.monotonic() < stop:
                    connection.sendall(chunk)
                    sent += len(chunk)
            results.append(f"{sent / 1e6:.1f} MB were taken")
    return ", ".join(results)


def slow_readers(client: Client) -> str:
    """Clients that send many requests at once and never read a response."""
    with contextlib.ExitStack() as stack:
        for connection in _open_connections(client, _GREEDY, stack):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            _send(connection, _request(client) * 50)
        waits = _waits(client)
    return f"{_GREEDY} did, 50 requests each, others waited {max(waits):.2f} s at most"


def greedy(client: Client) -> str:
    """Clients of another address that send requests one after the other, as fast as they can."""
    answered: Counter[bytes] = Counter()
    stop = time.monotonic() + _HELD

    def ask() -> None:
        with socket.create_connection(client.address, 60, ("127.0.0.2", 0)) as connection:
            while time.monotonic() < stop:
                connection.sendall(_request(client, texts=20))
                answered[connection.recv(1 << 20)[9:12]] += 1

    threads = [threading.Thread(target=ask) for _ in range(_GREEDY)]
    for thread in threads:
        thread.start()
    waits = _waits(client)
    for thread in threads:
        thread.join()
    return (
        f"{_GREEDY} of one address had {sum(answered.values())} answers, "
        f"others waited {max(waits):.2f} s at most"
    )


def other_sites(client: Client) -> str:
    """Requests that a page of another site can make a browser send."""
    body = b'{"text": "a"}'
    headers = [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
    return _count_statuses(
        [client.ask("POST", "/translate", body, header)[0] for header in headers]
    )


CASES = {
    "killed clients": killed,
    "clients killed amid their bodies": killed_midway,
    "oversized bodies": oversized,
    "malformed JSON": malformed,
    "10,000-word inputs": long_inputs,
    "no HTTP": no_http,
    "silent connections": silent,
    "half headers": half_headers,
    "bytes one by one": dripping,
    "endless headers": endless_headers,
    "slow readers": slow_readers,
    "greedy clients": greedy,
    "other sites": other_sites,
}


def _count_statuses(statuses: list[int]) -> str:
    counts = Counter(f"{status} {http.client.responses[status]}" for status in statuses)
    return ", ".join(f"{count} times {name}" for name, count in counts.items())


def _crowd(client: Client, sent: bytes) -> str:
    with contextlib.ExitStack() as stack:
        for connection in _open_connections(client, _CROWD, stack):
            _send(connection, sent)
        waits = _waits(client)
    return f"{_CROWD} were there, others waited {max(waits):.2f} s at most"


def _open_connections(
    client: Client, count: int, stack: contextlib.ExitStack
) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(client.address, 30)) for _ in range(count)]


def _send(connection: socket.socket, sent: bytes) -> None:
    with contextlib.suppress(OSError):  # the server has closed it
        connection.sendall(sent)


def _request(client: Client, texts: int = 1) -> bytes:
    body = json.dumps({"text": ["one of many"] * texts}).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: {client.host}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def _waits(client: Client) -> list[float]:
    """Seconds that a well-behaved client waits for each of its sequential requests."""
    stop, waits = time.monotonic() + _HELD, []
    while time.monotonic() < stop:
        waits.append(_wait(client))
    return waits


def _wait(client: Client) -> float:
    start = time.monotonic()
    if not client.alive():
        raise RuntimeError("a well-behaved client was not answered")
    return time.monotonic() - start
