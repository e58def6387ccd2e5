"""Clients of the server: one that asks, and many that ask at the same time."""

import http.client
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit


class Client:
    """A server's address, and simple requests to it; each of them on a connection of its own."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port

    @property
    def address(self) -> tuple[str, int]:
        """For a socket."""
        return self.host, self.port

    def connect(self, timeout: float = 120) -> http.client.HTTPConnection:
        """A connection that waits so many seconds for an answer."""
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """The status and the body of the answer; raises OSError, http.client.HTTPException."""
        connection = self.connect()
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def wait_until_ready(self, server: subprocess.Popen) -> None:
        """Returns once the server is ready; raises RuntimeError where it ended."""
        while self.ask("GET", "/health")[0] != 200:
            if server.poll() is not None:
                raise RuntimeError("the server ended before it was ready")
            time.sleep(0.2)

    def alive(self) -> bool:
        """Whether the server translates."""
        status, body = self.ask("POST", "/translate", b'{"text": "a"}')
        return status == 200 and len(json.loads(body)["translations"]) == 1

    def metric(self, name: str) -> float:
        """One of the server's numbers."""
        _, body = self.ask("GET", "/metrics")
        (line,) = (x for x in body.decode().splitlines() if x.startswith(f"{name} "))
        return float(line.split()[-1])


class Load:
    """Many clients that ask for `sentences` again and again, `texts` at a time each.

    `times` are seconds from request to answer, of what was answered.
    """

    def __init__(
        self,
        client: Client,
        sentences: Sequence[str],
        expected: Sequence[str],
        alignment: bool,
        texts: int = 1,
    ):
        self._client = client
        starts = range(0, len(sentences), texts)
        asked = [list(sentences[start : start + texts]) for start in starts]
        self._requests = [
            _post({"text": some, "alignment": alignment}, client.host) for some in asked
        ]
        self._expected = [list(expected[start : start + texts]) for start in starts]
        self._next, self._lock = 0, threading.Lock()
        self.asked = self.different = self.sentences = 0
        self.times: list[float] = []
        self.seconds = 0.0

    def run(self, clients: int, seconds: float) -> None:
        """Has so many ask for so long; what was asked by then is waited for."""
        start = time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            asking = [pool.submit(self._ask, start + seconds) for _ in range(clients)]
        for one in asking:
            one.result()  # a client's own mistake ends the measurement
        self.seconds = time.monotonic() - start

    @property
    def lost(self) -> int:
        """How many requests had no answer of status 200."""
        return self.asked - len(self.times)

    def _ask(self, until: float) -> None:
        connection = None
        while time.monotonic() < until:
            with self._lock:
                number, self._next = self._next, (self._next + 1) % len(self._requests)
                self.asked += 1
            start = time.monotonic()
            try:
                connection = connection or socket.create_connection(self._client.address, 120)
                connection.sendall(self._requests[number])
                status, body = _answer(connection)
                found = json.loads(body)["translations"] if status == 200 else None
            except OSError:
                found = None
                if connection:
                    connection.close()
                connection = None
            took = time.monotonic() - start
            with self._lock:
                if found is not None:
                    self.times.append(took)
                    self.sentences += len(found)
                    self.different += [each["text"] for each in found] != self._expected[number]
        if connection:
            connection.close()


# By hand, and not by http.client: clients share the cores of the server that they measure, which
# should have as much of them as it can.
def _post(asked: dict, host: str) -> bytes:
    body = json.dumps(asked).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body; raises OSError where the server hangs up."""
    head, more, body = _received(connection).partition(b"\r\n\r\n")
    while not more:
        head, more, body = (head + _received(connection)).partition(b"\r\n\r\n")
    left = int(re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)[1]) - len(body)
    parts = [body]
    while left > 0:
        parts.append(_received(connection))
        left -= len(parts[-1])
    return int(head.split(b" ", 2)[1]), b"".join(parts)


def _received(connection: socket.socket) -> bytes:
    some = connection.recv(1 << 16)
    if not some:
        raise ConnectionError("the server hung up")
    return some
