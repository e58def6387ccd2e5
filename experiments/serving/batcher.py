"""Requests that come together are answered together: one thread owns the model."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class QueueFullError(Exception):
    """As many requests wait as may."""


class ClosedError(Exception):
    """No more requests are taken."""


@dataclass(frozen=True, eq=False)
class _Job(Generic[Asked]):
    asked: Asked
    key: Hashable  # only equal ones go together
    size: int
    answer: Future = field(default_factory=Future)


class Batcher(Generic[Asked, Answer]):
    """A queue, and a thread that gives `run` what is in it, oldest first.

    `run(key, [asked, ..])` returns as many answers in the same order. It is given requests of one
    key whose sizes add up to at most `most`, but at least one; where several times as much waits,
    to as many times that, `fold` at most: among more there are more of like lengths. Where the last
    batch had several, others are waited for up to `window` seconds, unless they fill one before;
    who asks alone never waits. `begin` is called first, in the same thread: until it has returned,
    `ready` is not set. What it raises is kept in `failure`, and `failed` is called.
    """

    def __init__(
        self,
        run: Callable[[Hashable, Sequence[Asked]], Sequence[Answer]],
        *,
        most: int,
        fold: int = 1,
        max_queue: int,
        window: float = 0.0,
        begin: Callable[[], None] = lambda: None,
        failed: Callable[[], None] = lambda: None,
    ):
        self._run, self._begin, self._failed = run, begin, failed
        self._most, self._fold, self._max_queue, self._window = most, fold, max_queue, window
        self._jobs: deque[_Job[Asked]] = deque()
        self._changed = threading.Condition()
        self._closed, self._several = False, False
        self.ready = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, asked: Asked, key: Hashable, size: int) -> "Future[Answer]":
        """The answer to come; to cancel it takes the request out, unless it was begun.

        Raises QueueFullError, and ClosedError after `close`.
        """
        job = _Job(asked, key, size)
        with self._changed:
            if self._closed:
                raise ClosedError
            if self._waiting() >= self._max_queue:
                raise QueueFullError
            self._jobs.append(job)
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
            self._jobs = deque(job for job in self._jobs if not job.answer.cancelled())
        return len(self._jobs)

    def _work(self) -> None:
        try:
            self._begin()
        except Exception as error:
            self.failure = error
            self._failed()
            return
        self.ready.set()
        while batch := self._next():
            self._answer(batch)
            del batch  # what was answered is not kept until the next one comes

    def _next(self) -> list[_Job[Asked]]:
        """The next batch, all of it begun; empty at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting() or self._closed)
                if not self._jobs:
                    return []
                until = time.monotonic() + self._window * self._several
                while not self._closed and sum(job.size for job in self._jobs) < self._most:
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                if batch := self._take():
                    self._several = len(batch) > 1
                    return batch

    def _take(self) -> list[_Job[Asked]]:
        taken: list[_Job[Asked]] = []
        kept: deque[_Job[Asked]] = deque()
        size, full = 0, False
        alike = sum(job.size for job in self._jobs if job.key == self._jobs[0].key)
        most = self._most * min(max(alike // self._most, 1), self._fold)
        for job in self._jobs:
            if taken and (job.key != taken[0].key or full or size + job.size > most):
                full = full or job.key == taken[0].key  # none of its kind goes before it
                kept.append(job)
            elif job.answer.set_running_or_notify_cancel():
                taken.append(job)
                size += job.size
        self._jobs = kept
        return taken

    def _answer(self, batch: list[_Job[Asked]]) -> None:
        try:
            found = self._run(batch[0].key, [job.asked for job in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for job in batch:  # the others have no part in one request's mistake
                self._answer([job])
            return
        for job, answer in zip(batch, found, strict=True):
            job.answer.set_result(answer)
