"""Dynamic batching: requests that arrive together share a search; one thread owns the model."""

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
    """As many requests wait as may, of all clients or of this one."""


class ClosedError(Exception):
    """No more requests are taken."""


class SearchError(RuntimeError):
    """What is no Exception ended a search: a panic of a library, or an exit."""


@dataclass(frozen=True, eq=False)
class _Job(Generic[Key, Item]):
    asked: Item
    key: Key  # only equal ones go together
    size: int
    client: Hashable
    turn: int  # the order in the queue
    answer: Future = field(default_factory=Future)


class Batcher(Generic[Key, Item, Answer]):
    """A queue, and a thread that gives `run` what is in it, in fair order.

    Clients take turns (self-clocked fair queueing): of each goes one request, the oldest, and then
    of each the next. One of several batches counts as so many. A client may have as many waiting as
    there are free places left in the queue, so that one alone never fills it.

    `run(key, [asked, ..])` returns as many answers in the same order. It is given requests of one
    key whose sizes add up to at most `max_batch_size`, but at least one; where several times as
    much waits, to as many times that, `max_merged_batches` at most: among more there are more of
    like lengths. Where the last batch had several, others are waited for up to `batch_wait_seconds`
    seconds, unless they fill one before; who asks alone never waits. `begin` is called first, in
    the same thread: until it has returned, `ready` is not set.

    What `run` raises is the answer to the request, and what is no Exception becomes a SearchError.
    What else ends the thread is kept in `failure`: requests that wait are answered with it, no more
    are taken, and `failed` is called.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Item]], Sequence[Answer]],
        *,
        max_batch_size: int,
        max_merged_batches: int = 1,
        max_queue: int,
        batch_wait_seconds: float = 0.0,
        begin: Callable[[], None] = lambda: None,
        failed: Callable[[], None] = lambda: None,
    ):
        self._run, self._begin, self._failed = run, begin, failed
        self._max_batch_size, self._max_merged_batches = max_batch_size, max_merged_batches
        self._max_queue, self._batch_wait_seconds = max_queue, batch_wait_seconds
        self._jobs: list[_Job[Key, Item]] = []
        self._turn = 0  # of what was taken last
        self._changed = threading.Condition()
        self._closed, self._several = False, False
        self.ready = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, asked: Item, key: Key, size: int, client: Hashable = None) -> "Future[Answer]":
        """The answer to come; to cancel it takes the request out, unless it was begun.

        Raises QueueFullError, and ClosedError after `close`.
        """
        with self._changed:
            if self._closed:
                raise ClosedError
            free = self._max_queue - self._waiting()
            own = [job for job in self._jobs if job.client == client]
            if len(own) >= free:
                raise QueueFullError
            last = own[-1].turn if own else self._turn
            turn = max(self._turn, last) + max(1, -(-size // self._max_batch_size))
            job = _Job(asked, key, size, client, turn)
            bisect.insort(self._jobs, job, key=lambda each: each.turn)
            self._changed.notify_all()
        return job.answer

    def waiting(self) -> int:
        """How many requests are not begun."""
        with self._changed:
            return self._waiting()

    def close(self) -> None:
        """Take no more, answer what was taken, and end the thread."""
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
            self._begin()
            self.ready.set()
            while batch := self._next():
                self._answer(batch)
                batch = []  # what was answered is not kept until the next one comes
        except BaseException as error:
            self._fail(error, batch)

    def _fail(self, error: BaseException, begun: list[_Job[Key, Item]]) -> None:
        with self._changed:
            self.failure = error
            self._closed = True
            waiting, self._jobs = self._jobs, []
        self._failed()
        for job in [*begun, *waiting]:
            if not job.answer.done():
                job.answer.set_exception(ClosedError())

    def _next(self) -> list[_Job[Key, Item]]:
        """The next batch, all of it begun; empty at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting() or self._closed)
                if not self._jobs:
                    return []
                until = time.monotonic() + self._batch_wait_seconds * self._several
                while (
                    not self._closed and sum(job.size for job in self._jobs) < self._max_batch_size
                ):
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                if batch := self._take():
                    self._several = len(batch) > 1
                    return batch

    def _take(self) -> list[_Job[Key, Item]]:
        taken: list[_Job[Key, Item]] = []
        kept: list[_Job[Key, Item]] = []
        size, full = 0, False
        alike = sum(job.size for job in self._jobs if job.key == self._jobs[0].key)
        max_batch_size = self._max_batch_size * min(
            max(alike // self._max_batch_size, 1), self._max_merged_batches
        )
        for job in self._jobs:
            if taken and (job.key != taken[0].key or full or size + job.size > max_batch_size):
                full = full or job.key == taken[0].key  # none of its kind goes before it
                kept.append(job)
            elif job.answer.set_running_or_notify_cancel():
                taken.append(job)
                size += job.size
                self._turn = max(self._turn, job.turn)
        self._jobs = kept
        return taken

    def _answer(self, batch: list[_Job[Key, Item]]) -> None:
        try:
            found = self._run(batch[0].key, [job.asked for job in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(_as_exception(error))
                return
            for job in batch:  # the others have no part in one request's mistake
                self._answer([job])
            return
        for job, answer in zip(batch, found, strict=True):
            job.answer.set_result(answer)


def _as_exception(error: BaseException) -> Exception:
    """What may be raised in an event loop without ending it."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return SearchError(f"{type(error).__name__}: {error}")
