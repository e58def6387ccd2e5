"""Load generator: many concurrent clients in one thread.

They share the cores of the server that they measure, which should have as much of them as it can:
so HTTP is written by hand, and answers are read once all have been given.
"""

import json
import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.clients import Client

_PATIENCE = 120.0  # seconds without any answer, after which what is open is lost
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class _Talk:
    """One client's connection and the request that it waits for an answer to."""

    connection: socket.socket
    number: int
    start: float
    heard: bytes = b""


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
        self.asked = self.different = self.sentences = 0
        self.times: list[float] = []
        self.seconds = 0.0

    def run(self, clients: int, seconds: float) -> None:
        """Has so many ask for so long; what was asked by then is waited for."""
        start = time.monotonic()
        hypotheses_to_json: list[tuple[int, bytes]] = []
        with selectors.DefaultSelector() as ready:
            for _ in range(clients):
                self._ask(ready, None)
            while ready.get_map():
                for key, _ in ready.select(_PATIENCE) or [(key, 0) for key in _open(ready)]:
                    talk = key.data
                    whole = self._hear(ready, talk)
                    if whole is None:
                        continue
                    if whole.startswith(b"HTTP/1.1 200 "):
                        self.times.append(time.monotonic() - talk.start)
                        hypotheses_to_json.append((talk.number, whole))
                    if time.monotonic() < start + seconds:
                        self._ask(ready, talk.connection if whole else None)
                    elif whole:
                        talk.connection.close()
        self.seconds = time.monotonic() - start
        for number, whole in hypotheses_to_json:
            found = json.loads(whole.partition(b"\r\n\r\n")[2])["translations"]
            self.sentences += len(found)
            self.different += [each["text"] for each in found] != self._expected[number]

    @property
    def lost(self) -> int:
        """How many requests had no answer of status 200."""
        return self.asked - len(self.times)

    def _ask(self, ready: selectors.BaseSelector, connection: socket.socket | None) -> None:
        """The next request, on this connection or a new one."""
        number = self.asked % len(self._requests)
        self.asked += 1
        start = time.monotonic()
        try:
            connection = connection or socket.create_connection(self._client.address, _PATIENCE)
            connection.sendall(self._requests[number])
        except OSError:  # this client asks no more
            if connection:
                connection.close()
            return
        ready.register(connection, selectors.EVENT_READ, _Talk(connection, number, start))

    def _hear(self, ready: selectors.BaseSelector, talk: _Talk) -> bytes | None:
        """The whole answer, nothing of it where the server hung up, None where more is to come."""
        try:
            talk.connection.settimeout(0.0)
            some = talk.connection.recv(1 << 16)
        except OSError:
            some = b""
        talk.heard += some
        head, end, body = talk.heard.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if some and not (end and length and len(body) >= int(length[1])):
            return None
        ready.unregister(talk.connection)
        talk.connection.settimeout(_PATIENCE)
        if not some:
            talk.connection.close()
            return b""
        return talk.heard


def _open(ready: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    return list(ready.get_map().values())


def _post(asked: dict, host: str) -> bytes:
    body = json.dumps(asked).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
