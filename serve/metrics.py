"""Prometheus metrics of the server."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters and histograms of one server, in a separate registry."""

    def __init__(self, waiting: Callable[[], int]):
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "heed_requests", "Requests by path and status; 499: the client had gone.",
            ["path", "status"], registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "heed_request_seconds", "From a request for translations to its answer.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batch_requests = Histogram(
            "heed_batch_requests", "Requests that were answered by one search.",
            buckets=_COUNTS, registry=registry,
        )  # fmt: skip
        self.batch_texts = Histogram(
            "heed_batch_texts", "Texts of one search.", buckets=_COUNTS, registry=registry
        )
        self.search_seconds = Histogram(
            "heed_search_seconds", "Of one search, with its alignments.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        queue = Gauge("heed_queue_requests", "Requests that wait for a search.", registry=registry)
        queue.set_function(waiting)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)
