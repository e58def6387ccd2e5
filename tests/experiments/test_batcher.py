"""The dynamic batcher: batching, order, fairness and failures."""

import threading
import time
from contextlib import contextmanager

import pytest

from serve.dynamic_batcher import Batcher, ClosedError, QueueFullError, SearchError


@contextmanager
def running_batcher(run, **options):
    batcher = Batcher(run, **dict(max_batch_size=4, max_queue=100) | options)
    batcher.start()
    yield batcher
    if not batcher.closed:
        batcher.close()


def test_waiting_requests_are_batched_in_order_by_key_and_size():
    batches, proceed = [], threading.Event()

    def run(key, items):
        assert proceed.wait(10)
        batches.append((key, list(items)))
        return [2 * item for item in items]

    with running_batcher(run) as batcher:
        first = batcher.submit(0, "a", 1)
        while batcher.waiting():
            time.sleep(0.001)
        items = [(1, "a", 2), (2, "b", 1), (3, "a", 1), (4, "a", 3), (5, "a", 1), (6, "b", 9)]
        answers = [batcher.submit(*item) for item in items]
        cancelled = batcher.submit(7, "a", 1)
        assert cancelled.cancel() and batcher.waiting() == len(items)
        proceed.set()
        batcher.close()  # answers all accepted requests
    assert [item.result(0) for item in (first, *answers)] == [0, 2, 4, 6, 8, 10, 12]
    assert batches == [("a", [0]), ("a", [1, 3]), ("b", [2]), ("a", [4, 5]), ("b", [6])]
    with pytest.raises(ClosedError):
        batcher.submit(8, "a", 1)


@pytest.mark.parametrize(
    ("max_merged_batches", "count", "expected"),
    [
        (3, 5, [[1, 2, 3, 4], [5]]),  # size 10: two batches of 4, and 2 remain
        (2, 7, [[1, 2, 3, 4], [5, 6], [7]]),  # at most two at a time
        (1, 3, [[1, 2], [3]]),
    ],
)
def test_many_waiting_requests_are_merged_into_several_batches(max_merged_batches, count, expected):
    batches, proceed = [], threading.Event()

    def run(_, items):
        assert proceed.wait(10)
        batches.append(list(items))
        return items

    with running_batcher(run, max_merged_batches=max_merged_batches) as batcher:
        batcher.submit(0, "a", 1)
        while batcher.waiting():
            time.sleep(0.001)
        for n in range(1, count + 1):
            batcher.submit(n, "a", 2)
        batcher.submit(8, "b", 4)  # another key joins none of them
        proceed.set()
        batcher.close()
    assert batches == [[0], *expected, [8]]


def test_only_requests_after_a_batch_wait_for_more():
    batch_sizes, proceed = [], threading.Event()

    def run(_, items):
        batch_sizes.append(len(items))
        assert proceed.wait(10)
        return items

    with running_batcher(run, batch_wait_seconds=1.0, max_batch_size=3) as batcher:
        proceed.set()
        start = time.monotonic()
        for n in range(3):
            batcher.submit(n, None, 1).result(10)
        assert time.monotonic() - start < 0.9 and batch_sizes == [1, 1, 1]
        proceed.clear()
        single = batcher.submit(3, None, 1)
        while batcher.waiting():
            time.sleep(0.001)
        pair = [batcher.submit(n, None, 1) for n in (4, 5)]
        proceed.set()
        assert [answer.result(10) for answer in (single, *pair)] == [3, 4, 5]
        start = time.monotonic()
        first = batcher.submit(6, None, 1)
        time.sleep(0.05)
        second = batcher.submit(7, None, 1)
        assert [first.result(10), second.result(10)] == [6, 7]
        assert batch_sizes == [1, 1, 1, 1, 2, 2] and time.monotonic() - start >= 0.9


def test_an_error_in_on_start_is_reported():
    failed = threading.Event()

    def on_start():
        raise RuntimeError("no memory")

    with running_batcher(
        lambda _, items: items, on_start=on_start, on_failure=failed.set
    ) as batcher:
        assert failed.wait(10) and not batcher.ready.is_set()
        assert str(batcher.failure) == "no memory"


def test_clients_take_turns():
    batches, proceed = [], threading.Event()

    def run(_, items):
        assert proceed.wait(10)
        batches.append(list(items))
        return items

    with running_batcher(run, max_batch_size=2) as batcher:
        batcher.submit("first", None, 1, "greedy")
        while batcher.waiting():
            time.sleep(0.001)
        for n in range(6):
            batcher.submit(f"greedy {n}", None, 1, "greedy")
        batcher.submit("large", None, 4, "other")
        batcher.submit("after it", None, 1, "other")
        for name in "one", "two":
            batcher.submit(name, None, 1, name)
        proceed.set()
        batcher.close()
    assert batches == [
        ["first"],
        ["greedy 0", "one"],
        ["two", "greedy 1"],
        ["large"],  # two batches, so it is its client's second turn
        ["greedy 2", "after it"],
        ["greedy 3", "greedy 4"],
        ["greedy 5"],
    ]


def test_one_client_cannot_fill_the_queue():
    proceed = threading.Event()

    def run(_, items):
        assert proceed.wait(10)
        return items

    with running_batcher(run, max_queue=8) as batcher:
        batcher.submit(0, None, 1, "greedy")
        while batcher.waiting():
            time.sleep(0.001)
        for client, max_batch_size in ("greedy", 4), ("second", 2), ("third", 1), ("fourth", 1):
            for n in range(max_batch_size):
                batcher.submit(n, None, 1, client)
            with pytest.raises(QueueFullError):
                batcher.submit(max_batch_size, None, 1, client)
        proceed.set()


@pytest.mark.parametrize("error", [BaseException("a panic"), SystemExit(3), StopIteration()])
def test_base_exceptions_fail_only_one_request(error):
    def run(_, items):
        if 1 in items:
            raise error
        return items

    with running_batcher(run) as batcher:
        with pytest.raises(SearchError, match=type(error).__name__):
            batcher.submit(1, None, 1).result(10)
        assert batcher.submit(2, None, 1).result(10) == 2
        assert batcher.failure is None


def test_the_end_of_the_thread_fails_all_waiting_requests():
    proceed, failed = threading.Event(), threading.Event()

    def run(_, items):
        assert proceed.wait(10)
        return []  # too few results

    with running_batcher(run, on_failure=failed.set) as batcher:
        first = batcher.submit(0, None, 1)
        while batcher.waiting():
            time.sleep(0.001)
        second = batcher.submit(1, None, 1)
        proceed.set()
        for answer in first, second:
            with pytest.raises(ClosedError):
                answer.result(10)
        assert failed.wait(10) and isinstance(batcher.failure, ValueError)
        with pytest.raises(ClosedError):
            batcher.submit(2, None, 1)


def test_a_late_client_takes_only_its_turn():
    order, proceed, started = [], threading.Semaphore(0), threading.Semaphore(0)

    def run(_, items):
        order.extend(items)
        started.release()
        assert proceed.acquire(timeout=10)
        return items

    with running_batcher(run, max_batch_size=1) as batcher:
        for n in range(6):
            batcher.submit(f"greedy {n}", None, 1, "greedy")
        for n in range(4):  # each from a new client, during another search
            assert started.acquire(timeout=10)
            batcher.submit(f"late {n}", None, 1, n)
            proceed.release()
        for _ in range(10):
            proceed.release()
        batcher.close()
    greedy, late = ([f"{name} {n}" for n in range(6)] for name in ("greedy", "late"))
    assert order == [
        *(greedy[0], greedy[1], late[0], greedy[2], late[1], late[2]),
        *(greedy[3], late[3], greedy[4], greedy[5]),
    ]
