"""Prometheus metrics of the server."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServerMetrics:
    """Counters and histograms of one server, in a separate registry."""

    def __init__(self, waiting: Callable[[], int]):
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "heed_requests", "Requests by path and status; 499: the client disconnected.",
            ["path", "status"], registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "heed_request_seconds", "Seconds from a translation request to its response.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batch_requests = Histogram(
            "heed_batch_requests", "Requests per search.",
            buckets=_COUNTS, registry=registry,
        )  # fmt: skip
        self.batch_texts = Histogram(
            "heed_batch_texts", "Texts per search.", buckets=_COUNTS, registry=registry
        )
        self.search_seconds = Histogram(
            "heed_search_seconds", "Seconds of a search, with its alignments.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        queue = Gauge("heed_queue_requests", "Requests in the queue.", registry=registry)
        queue.set_function(waiting)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)
