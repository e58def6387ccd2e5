"""What a request may ask for, and how it is told that it may not."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of one request, but for the queue, which all share."""

    body: int = 1 << 18  # bytes
    tokens: int = 2000  # of all texts, each with its end
    queue: int = 256  # requests that wait
    seconds: float = 30.0  # from a request to its answer


class RefusedError(Exception):
    """A request that is not answered as asked: an HTTP status, and a line that says why."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}
