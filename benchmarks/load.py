"""Load generator: many concurrent clients in one thread.

The clients share the cores of the measured server and must use little CPU time: HTTP is written
manually, and responses are parsed after the run.
"""

import json
import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.clients import Client

_TIMEOUT = 120.0  # seconds without a response until open requests count as failed
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class _Exchange:
    """A client's connection and its pending request."""

    connection: socket.socket
    index: int
    start: float
    received: bytes = b""


class Load:
    """Many clients that request `sentences` repeatedly, `texts` per request.

    `times` are the seconds from request to response of all answered requests.
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
        groups = [list(sentences[start : start + texts]) for start in starts]
        self._requests = [
            _post({"text": group, "alignment": alignment}, client.host) for group in groups
        ]
        self._expected = [list(expected[start : start + texts]) for start in starts]
        self.num_requests = self.different = self.sentences = 0
        self.times: list[float] = []
        self.seconds = 0.0

    def run(self, clients: int, seconds: float) -> None:
        """Run this many clients for this long, then wait for all pending responses."""
        start = time.monotonic()
        responses: list[tuple[int, bytes]] = []
        with selectors.DefaultSelector() as selector:
            for _ in range(clients):
                self._send(selector, None)
            while selector.get_map():
                for key, _ in selector.select(_TIMEOUT) or [(key, 0) for key in _open(selector)]:
                    exchange = key.data
                    response = self._receive(selector, exchange)
                    if response is None:
                        continue
                    if response.startswith(b"HTTP/1.1 200 "):
                        self.times.append(time.monotonic() - exchange.start)
                        responses.append((exchange.index, response))
                    if time.monotonic() < start + seconds:
                        self._send(selector, exchange.connection if response else None)
                    elif response:
                        exchange.connection.close()
        self.seconds = time.monotonic() - start
        for index, response in responses:
            translations = json.loads(response.partition(b"\r\n\r\n")[2])["translations"]
            self.sentences += len(translations)
            self.different += [
                translation["text"] for translation in translations
            ] != self._expected[index]

    @property
    def failed(self) -> int:
        """Number of requests without a response of status 200."""
        return self.num_requests - len(self.times)

    def _send(self, selector: selectors.BaseSelector, connection: socket.socket | None) -> None:
        """Send the next request, on this connection or a new one."""
        index = self.num_requests % len(self._requests)
        self.num_requests += 1
        start = time.monotonic()
        try:
            connection = connection or socket.create_connection(self._client.address, _TIMEOUT)
            connection.sendall(self._requests[index])
        except OSError:  # the client stops
            if connection:
                connection.close()
            return
        selector.register(connection, selectors.EVENT_READ, _Exchange(connection, index, start))

    def _receive(self, selector: selectors.BaseSelector, exchange: _Exchange) -> bytes | None:
        """The complete response; b"" if the server disconnected; None if it is incomplete."""
        try:
            exchange.connection.settimeout(0.0)
            chunk = exchange.connection.recv(1 << 16)
        except OSError:
            chunk = b""
        exchange.received += chunk
        head, separator, body = exchange.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if chunk and not (separator and length and len(body) >= int(length[1])):
            return None
        selector.unregister(exchange.connection)
        exchange.connection.settimeout(_TIMEOUT)
        if not chunk:
            exchange.connection.close()
            return b""
        return exchange.received


def _open(selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    return list(selector.get_map().values())


def _post(payload: dict, host: str) -> bytes:
    body = json.dumps(payload).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
