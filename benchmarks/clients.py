"""A simple HTTP client of the server."""

import http.client
import json
import subprocess
import time
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Client:
    """A server's address, and simple requests to it, each on a new connection."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        assert parts.hostname and parts.port, url
        self.host, self.port = parts.hostname, parts.port

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) for a socket."""
        return self.host, self.port

    def connect(self, timeout: float = 120) -> http.client.HTTPConnection:
        """Return a connection with this timeout in seconds."""
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> tuple[int, bytes]:
        """Send a request; return status and body. Raises OSError, http.client.HTTPException."""
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def wait_until_ready(self, server: subprocess.Popen) -> None:
        """Wait until the server is ready. Raises RuntimeError if it ended."""
        while self.request("GET", "/health")[0] != 200:
            if server.poll() is not None:
                raise RuntimeError("the server ended before it was ready")
            time.sleep(0.2)

    def alive(self) -> bool:
        """Whether the server translates."""
        status, body = self.request("POST", "/translate", b'{"text": "a"}')
        return status == 200 and len(json.loads(body)["translations"]) == 1

    def metric(self, name: str) -> float:
        """A metric of the server."""
        _, body = self.request("GET", "/metrics")
        (line,) = (x for x in body.decode().splitlines() if x.startswith(f"{name} "))
        return float(line.split()[-1])
