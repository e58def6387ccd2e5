"""What clients should not do: each case does it and returns what happened."""

import contextlib
import http.client
import json
import socket
import struct
from collections import Counter

from benchmarks.clients import Client

_MANY = 200


def killed(client: Client) -> str:
    """Clients that ask and are gone at once: half of them with a reset, as a killed process's."""
    body = json.dumps({"text": "one of many"}).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for number in range(_MANY):
        with socket.create_connection((client.host, client.port)) as one:
            one.sendall(head + body)
            if number % 2:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return f"{_MANY} were gone before their answers"


def killed_midway(client: Client) -> str:
    """Clients that are gone amid their bodies."""
    head = b"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(_MANY):
        with socket.create_connection((client.host, client.port)) as one:
            one.sendall(head + b'{"text": "half')
    return f"{_MANY} were gone amid their bodies"


def oversized(client: Client) -> str:
    """Bodies of 1 MB and 10 MB, and one of 1 MB that does not say how large it is."""
    bodies = [b'{"text": "' + b"a" * size + b'"}' for size in (1_000_000, 10_000_000)]
    statuses = [client.ask("POST", "/translate", body)[0] for body in bodies]
    connection = client.connect()
    with contextlib.closing(connection):
        connection.request("POST", "/translate", iter([b"a" * 100_000] * 10), encode_chunked=True)
        return _told([*statuses, connection.getresponse().status])


def malformed(client: Client) -> str:
    """Bodies that are not the JSON that is wanted."""
    bodies = [b"", b"{", b'{"text": ', b"\xff\xfe", b"[" * 100_000, b"null", b'{"text": {}}']
    bodies += [b'{"text": "\\ud800"}', b'{"text": "a", "n_best": 1e9}', b'{"text": "a", "x": 1}']
    return _told([client.ask("POST", "/translate", body)[0] for body in bodies])


def long_inputs(client: Client) -> str:
    """Texts of 10,000 words: in one, in a list, and as one word without a space."""
    texts = ["word " * 10_000, ["word"] * 10_000, "word" * 10_000, "\u4e2d" * 10_000]
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    return _told([client.ask("POST", "/translate", body)[0] for body in bodies])


def no_http(client: Client) -> str:
    """Bytes that are no request."""
    with socket.create_connection((client.host, client.port), timeout=30) as one:
        one.sendall(b"\x16\x03\x01" * 1000 + b"\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = one.recv(1000)
    return answer.decode(errors="replace").split("\r\n")[0] or "the connection was closed"


def idle(client: Client) -> str:
    """Connections that say nothing, held while others are answered."""
    with contextlib.ExitStack() as stack:
        for _ in range(_MANY):
            stack.enter_context(socket.create_connection((client.host, client.port)))
        return f"{_MANY} held, others were " + ("answered" if client.alive() else "not answered")


CASES = {
    "killed clients": killed,
    "clients killed amid their bodies": killed_midway,
    "oversized bodies": oversized,
    "malformed JSON": malformed,
    "10,000-word inputs": long_inputs,
    "no HTTP": no_http,
    "idle connections": idle,
}


def _told(statuses: list[int]) -> str:
    counts = Counter(f"{status} {http.client.responses[status]}" for status in statuses)
    return ", ".join(f"{count} times {what}" for what, count in counts.items())
