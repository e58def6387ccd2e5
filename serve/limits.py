"""Limits on requests and connections, and the error that refuses a request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of one request or one connection, but for `queue` and `connections`, which all share."""

    body: int = 1 << 18  # bytes
    tokens: int = 2000  # of all texts, each with its end
    queue: int = 256  # requests that wait; of one address at most half of them
    seconds: float = 30.0  # from a request to its answer
    headers: int = 1 << 14  # bytes of a request's line and headers
    connections: int = 1000  # open at a time
    client_seconds: float = 10.0  # for a client to send its headers, and to read its answer

    @property
    def characters(self) -> int:
        """Of all texts: what is longer is refused before it is tokenized."""
        return 32 * self.tokens


class RequestError(Exception):
    """A request that is not answered as asked: an HTTP status, and a line that says why."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}
