"""Limits of requests and connections, and the error of a rejected request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one request or connection; `queue` and `connections` are global."""

    body: int = 1 << 18  # bytes
    tokens: int = 2000  # of all texts, each with EOS
    queue: int = 256  # waiting requests; at most half from one address
    seconds: float = 30.0  # from a request to its response
    headers: int = 1 << 14  # bytes of a request's line and headers
    connections: int = 1000  # open connections
    client_seconds: float = 10.0  # for a client to send headers, and to read its response

    @property
    def characters(self) -> int:
        """Characters of all texts; longer requests are rejected before tokenization."""
        return 32 * self.tokens


class RequestError(Exception):
    """A rejected request: HTTP status, and a one-line message."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}
