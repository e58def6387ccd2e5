"""Dynamic batching: concurrent requests share a search, run by a single thread."""

import bisect
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class QueueFullError(Exception):
    """The queue is full, or this client's share of it."""


class ClosedError(Exception):
    """No more requests are accepted."""


class SearchError(RuntimeError):
    """A search raised a BaseException: a panic of a library, or an exit."""


@dataclass(frozen=True, eq=False)
class _Job(Generic[Key, Item]):
    item: Item
    key: Key  # only jobs with equal keys share a batch
    size: int
    client: Hashable
    turn: int  # position in the queue
    answer: Future = field(default_factory=Future)


class Batcher(Generic[Key, Item, Answer]):
    """A request queue, and a thread that passes batches of requests to `run`, in fair order.

    Clients take turns (self-clocked fair queueing): first the oldest request of each client, then
    the next of each. A request as large as several batches counts as that many. A client may queue
    only as many requests as there are free slots, so that one client never fills the queue.

    `run(key, [item, ..])` returns one answer per item, in the same order. Its requests have equal
    keys and a total size of at most `max_batch_size`, unless a single one is larger. If several
    batches are waiting, up to `max_merged_batches` of them are merged: more requests have more
    similar lengths. If the last batch had several requests, the thread waits for more up to
    `batch_wait_seconds`, or until a batch is full; a single client never waits. `on_start` is
    called first, in the same thread; `ready` is set when it returns.

    An Exception in `run` is set on the request's future; any other BaseException becomes a
    SearchError. Any other error ends the thread: it is stored in `failure`, waiting requests fail
    with ClosedError, no more are accepted, and `on_failure` is called.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Item]], Sequence[Answer]],
        *,
        max_batch_size: int,
        max_merged_batches: int = 1,
        max_queue: int,
        batch_wait_seconds: float = 0.0,
        on_start: Callable[[], None] = lambda: None,
        on_failure: Callable[[], None] = lambda: None,
    ):
        self._run, self._on_start, self._on_failure = run, on_start, on_failure
        self._max_batch_size, self._max_merged_batches = max_batch_size, max_merged_batches
        self._max_queue, self._batch_wait_seconds = max_queue, batch_wait_seconds
        self._jobs: list[_Job[Key, Item]] = []
        self._turn = 0  # of the last dequeued request
        self._changed = threading.Condition()
        self._closed, self._last_was_shared = False, False
        self.ready = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, item: Item, key: Key, size: int, client: Hashable = None) -> "Future[Answer]":
        """Queue a request; returns the future of its answer, which can be canceled until it runs.

        Raises QueueFullError, and ClosedError after `close`.
        """
        with self._changed:
            if self._closed:
                raise ClosedError
            free = self._max_queue - self._waiting()
            client_jobs = [job for job in self._jobs if job.client == client]
            if len(client_jobs) >= free:
                raise QueueFullError
            last_turn = client_jobs[-1].turn if client_jobs else self._turn
            turn = max(self._turn, last_turn) + max(1, -(-size // self._max_batch_size))
            job = _Job(item, key, size, client, turn)
            bisect.insort(self._jobs, job, key=lambda queued: queued.turn)
            self._changed.notify_all()
        return job.answer

    def waiting(self) -> int:
        """Number of queued requests that have not started."""
        with self._changed:
            return self._waiting()

    def close(self) -> None:
        """Accept no more requests, answer the queued ones, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _waiting(self) -> int:
        if any(job.answer.cancelled() for job in self._jobs):
            self._jobs = [job for job in self._jobs if not job.answer.cancelled()]
        return len(self._jobs)

    def _work(self) -> None:
        batch: list[_Job[Key, Item]] = []
        try:
            self._on_start()
            self.ready.set()
            while batch := self._next():
                self._answer(batch)
                batch = []  # release answered requests while waiting
        except BaseException as error:
            self._fail(error, batch)

    def _fail(self, error: BaseException, running: list[_Job[Key, Item]]) -> None:
        with self._changed:
            self.failure = error
            self._closed = True
            waiting, self._jobs = self._jobs, []
        self._on_failure()
        for job in [*running, *waiting]:
            if not job.answer.done():
                job.answer.set_exception(ClosedError())

    def _next(self) -> list[_Job[Key, Item]]:
        """Wait for the next batch and mark it as running; empty after `close`."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting() or self._closed)
                if not self._jobs:
                    return []
                deadline = time.monotonic() + self._batch_wait_seconds * self._last_was_shared
                while (
                    not self._closed and sum(job.size for job in self._jobs) < self._max_batch_size
                ):
                    timeout = deadline - time.monotonic()
                    if timeout <= 0 or not self._changed.wait(timeout):
                        break
                if batch := self._dequeue():
                    self._last_was_shared = len(batch) > 1
                    return batch

    def _dequeue(self) -> list[_Job[Key, Item]]:
        batch: list[_Job[Key, Item]] = []
        remaining: list[_Job[Key, Item]] = []
        size, full = 0, False
        same_key_size = sum(job.size for job in self._jobs if job.key == self._jobs[0].key)
        max_batch_size = self._max_batch_size * min(
            max(same_key_size // self._max_batch_size, 1), self._max_merged_batches
        )
        for job in self._jobs:
            if batch and (job.key != batch[0].key or full or size + job.size > max_batch_size):
                full = full or job.key == batch[0].key  # later requests must not overtake it
                remaining.append(job)
            elif job.answer.set_running_or_notify_cancel():
                batch.append(job)
                size += job.size
                self._turn = max(self._turn, job.turn)
        self._jobs = remaining
        return batch

    def _answer(self, batch: list[_Job[Key, Item]]) -> None:
        try:
            answers = self._run(batch[0].key, [job.item for job in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(_as_exception(error))
                return
            for job in batch:  # one request's error does not affect the others
                self._answer([job])
            return
        for job, answer in zip(batch, answers, strict=True):
            job.answer.set_result(answer)


def _as_exception(error: BaseException) -> Exception:
    """Convert an error to one that does not stop an event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return SearchError(f"{type(error).__name__}: {error}")
