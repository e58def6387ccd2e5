"""Adversarial clients: each case misbehaves and returns a description of the result."""

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from collections import Counter

from benchmarks.clients import Client

_NUM_CLIENTS = 200
_NUM_CONNECTIONS = 1030  # connections: more than the server accepts
_NUM_GREEDY = 20
_SECONDS = 2.0  # duration of the longer cases


def killed(client: Client) -> str:
    """Clients that disconnect right after a request, half of them with a TCP reset."""
    body = json.dumps({"text": "one of many"}).encode()
    length = f"Content-Length: {len(body)}\r\n\r\n"
    head = f"POST /translate HTTP/1.1\r\nHost: localhost\r\n{length}".encode()
    for index in range(_NUM_CLIENTS):
        with socket.create_connection((client.host, client.port)) as connection:
            connection.sendall(head + body)
            if index % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return f"{_NUM_CLIENTS} disconnected before the response"


def killed_in_body(client: Client) -> str:
    """Clients that disconnect in the middle of a request body."""
    head = b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(_NUM_CLIENTS):
        with socket.create_connection((client.host, client.port)) as connection:
            connection.sendall(head + b'{"text": "half')
    return f"{_NUM_CLIENTS} disconnected within the body"


def oversized(client: Client) -> str:
    """Bodies of 1 MB and 10 MB, and a chunked one of 1 MB without a Content-Length."""
    bodies = [b'{"text": "' + b"a" * size + b'"}' for size in (1_000_000, 10_000_000)]
    statuses = [client.request("POST", "/translate", body)[0] for body in bodies]
    connection = client.connect()
    with contextlib.closing(connection):
        connection.request("POST", "/translate", iter([b"a" * 100_000] * 10), encode_chunked=True)
        return _count_statuses([*statuses, connection.getresponse().status])


def malformed(client: Client) -> str:
    """Bodies that are not valid requests: broken JSON, wrong types, unknown keys."""
    bodies = [b"", b"{", b'{"text": ', b"\xff\xfe", b"[" * 100_000, b"null", b'{"text": {}}']
    bodies += [b'{"text": "\\ud800"}', b'{"text": "a", "n_best": 1e9}', b'{"text": "a", "x": 1}']
    return _count_statuses([client.request("POST", "/translate", body)[0] for body in bodies])


def long_inputs(client: Client) -> str:
    """Inputs of 10,000 words: one text, a list, and one word without a space."""
    texts = ["word " * 10_000, ["word"] * 10_000, "word" * 10_000, "\u4e2d" * 10_000]
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    return _count_statuses([client.request("POST", "/translate", body)[0] for body in bodies])


def not_http(client: Client) -> str:
    """Bytes that are not an HTTP request."""
    with socket.create_connection((client.host, client.port), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01" * 1000 + b"\r\n\r\n")
        response = b""
        with contextlib.suppress(ConnectionResetError):
            response = connection.recv(1000)
    return response.decode(errors="replace").split("\r\n")[0] or "the connection was closed"


def silent(client: Client) -> str:
    """More connections than the server accepts, all of them silent."""
    return _idle_connections(client, b"")


def partial_headers(client: Client) -> str:
    """More connections than the server accepts, each with half a header."""
    return _idle_connections(client, b"POST /translate HTTP/1.1\r\nHost: local")


def byte_by_byte(client: Client) -> str:
    """Connections that send their headers or their bodies byte by byte."""
    stop = time.monotonic() + _SECONDS
    with contextlib.ExitStack() as stack:
        connections = _open_connections(client, _NUM_CLIENTS, stack)
        for index, connection in enumerate(connections):
            body = b"Host: localhost\r\nContent-Length: 1000\r\n\r\n{" if index % 2 else b""
            _send(connection, b"POST /translate HTTP/1.1\r\n" + body)
        times = []
        while time.monotonic() < stop:
            for connection in connections:
                _send(connection, b"a")
            times.append(_time_request(client))
    return f"{_NUM_CLIENTS} clients; others waited at most {max(times):.2f} s"


def endless_headers(client: Client) -> str:
    """A header line that never ends, and an endless number of headers."""
    results = []
    for chunk in b"a" * 65536, b"X: a\r\n" * 10000:
        with socket.create_connection(client.address, timeout=30) as connection:
            _send(connection, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            sent_bytes, stop = 0, time.monotonic() + _SECONDS
            with contextlib.suppress(OSError):
                while time.monotonic() < stop:
                    connection.sendall(chunk)
                    sent_bytes += len(chunk)
            results.append(f"{sent_bytes / 1e6:.1f} MB were accepted")
    return ", ".join(results)


def slow_readers(client: Client) -> str:
    """Clients that send many requests at once and never read a response."""
    with contextlib.ExitStack() as stack:
        for connection in _open_connections(client, _NUM_GREEDY, stack):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            _send(connection, _request(client) * 50)
        times = _request_times(client)
    return f"{_NUM_GREEDY} clients, 50 requests each; others waited at most {max(times):.2f} s"


def greedy(client: Client) -> str:
    """Clients of another address that send sequential requests without pauses."""
    statuses: Counter[bytes] = Counter()
    stop = time.monotonic() + _SECONDS

    def send_requests() -> None:
        with socket.create_connection(client.address, 60, ("127.0.0.2", 0)) as connection:
            while time.monotonic() < stop:
                connection.sendall(_request(client, texts=20))
                statuses[connection.recv(1 << 20)[9:12]] += 1

    threads = [threading.Thread(target=send_requests) for _ in range(_NUM_GREEDY)]
    for thread in threads:
        thread.start()
    times = _request_times(client)
    for thread in threads:
        thread.join()
    return (
        f"{_NUM_GREEDY} of one address got {sum(statuses.values())} responses; "
        f"others waited at most {max(times):.2f} s"
    )


def cross_site(client: Client) -> str:
    """Cross-site requests, as a page of another site can cause in a browser."""
    body = b'{"text": "a"}'
    headers = [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
    return _count_statuses(
        [client.request("POST", "/translate", body, header)[0] for header in headers]
    )


CASES = {
    "killed clients": killed,
    "clients killed within a request body": killed_in_body,
    "oversized bodies": oversized,
    "malformed JSON": malformed,
    "10,000-word inputs": long_inputs,
    "no HTTP": not_http,
    "silent connections": silent,
    "half headers": partial_headers,
    "bytes one by one": byte_by_byte,
    "endless headers": endless_headers,
    "slow readers": slow_readers,
    "greedy clients": greedy,
    "other sites": cross_site,
}


def _count_statuses(statuses: list[int]) -> str:
    counts = Counter(f"{status} {http.client.responses[status]}" for status in statuses)
    return ", ".join(f"{count} times {name}" for name, count in counts.items())


def _idle_connections(client: Client, data: bytes) -> str:
    with contextlib.ExitStack() as stack:
        for connection in _open_connections(client, _NUM_CONNECTIONS, stack):
            _send(connection, data)
        times = _request_times(client)
    return f"{_NUM_CONNECTIONS} connections; others waited at most {max(times):.2f} s"


def _open_connections(
    client: Client, count: int, stack: contextlib.ExitStack
) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(client.address, 30)) for _ in range(count)]


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the server has closed it
        connection.sendall(data)


def _request(client: Client, texts: int = 1) -> bytes:
    body = json.dumps({"text": ["one of many"] * texts}).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: {client.host}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def _request_times(client: Client) -> list[float]:
    """Seconds that a well-behaved client waits for each of its sequential requests."""
    stop, times = time.monotonic() + _SECONDS, []
    while time.monotonic() < stop:
        times.append(_time_request(client))
    return times


def _time_request(client: Client) -> float:
    start = time.monotonic()
    if not client.alive():
        raise RuntimeError("a well-behaved client got no response")
    return time.monotonic() - start
