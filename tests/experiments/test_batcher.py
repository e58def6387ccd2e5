"""The queue alone: what goes together, in which order, and who waits."""

import threading
import time
from contextlib import contextmanager

import pytest

from serve.dynamic_batcher import Batcher, ClosedError, QueueFullError, SearchError


@contextmanager
def working(run, **options):
    batcher = Batcher(run, **dict(max_batch_size=4, max_queue=100) | options)
    batcher.start()
    yield batcher
    if not batcher.closed:
        batcher.close()


def test_what_waits_goes_in_order_by_key_and_size():
    ran, may = [], threading.Event()

    def run(key, asked):
        assert may.wait(10)
        ran.append((key, list(asked)))
        return [2 * each for each in asked]

    with working(run) as batcher:
        first = batcher.submit(0, "a", 1)
        while batcher.waiting():
            time.sleep(0.001)
        asked = [(1, "a", 2), (2, "b", 1), (3, "a", 1), (4, "a", 3), (5, "a", 1), (6, "b", 9)]
        answers = [batcher.submit(*each) for each in asked]
        gone = batcher.submit(7, "a", 1)
        assert gone.cancel() and batcher.waiting() == len(asked)
        may.set()
        batcher.close()  # answers all that it took
    assert [each.result(0) for each in (first, *answers)] == [0, 2, 4, 6, 8, 10, 12]
    assert ran == [("a", [0]), ("a", [1, 3]), ("b", [2]), ("a", [4, 5]), ("b", [6])]
    with pytest.raises(ClosedError):
        batcher.submit(8, "a", 1)


@pytest.mark.parametrize(
    ("max_merged_batches", "count", "expected"),
    [
        (3, 5, [[1, 2, 3, 4], [5]]),  # 10 are two batches of 4, and 2 are left
        (2, 7, [[1, 2, 3, 4], [5, 6], [7]]),  # no more than two at a time
        (1, 3, [[1, 2], [3]]),
    ],
)
def test_where_much_waits_several_batches_go_at_a_time(max_merged_batches, count, expected):
    ran, may = [], threading.Event()

    def run(_, asked):
        assert may.wait(10)
        ran.append(list(asked))
        return asked

    with working(run, max_merged_batches=max_merged_batches) as batcher:
        batcher.submit(0, "a", 1)
        while batcher.waiting():
            time.sleep(0.001)
        for n in range(1, count + 1):
            batcher.submit(n, "a", 2)
        batcher.submit(8, "b", 4)  # another kind fills none of them
        may.set()
        batcher.close()
    assert ran == [[0], *expected, [8]]


def test_only_who_came_with_others_waits_for_more():
    ran, may = [], threading.Event()

    def run(_, asked):
        ran.append(len(asked))
        assert may.wait(10)
        return asked

    with working(run, batch_wait_seconds=1.0, max_batch_size=3) as batcher:
        may.set()
        start = time.monotonic()
        for n in range(3):
            batcher.submit(n, None, 1).result(10)
        assert time.monotonic() - start < 0.9 and ran == [1, 1, 1]
        may.clear()
        alone = batcher.submit(3, None, 1)
        while batcher.waiting():
            time.sleep(0.001)
        together = [batcher.submit(n, None, 1) for n in (4, 5)]
        may.set()
        assert [each.result(10) for each in (alone, *together)] == [3, 4, 5]
        start = time.monotonic()
        late = batcher.submit(6, None, 1)
        time.sleep(0.05)
        later = batcher.submit(7, None, 1)
        assert [late.result(10), later.result(10)] == [6, 7]
        assert ran == [1, 1, 1, 1, 2, 2] and time.monotonic() - start >= 0.9


def test_what_begin_raises_is_kept_and_told():
    told = threading.Event()

    def begin():
        raise RuntimeError("no memory")

    with working(lambda _, asked: asked, begin=begin, failed=told.set) as batcher:
        assert told.wait(10) and not batcher.ready.is_set()
        assert str(batcher.failure) == "no memory"


def test_clients_take_turns():
    ran, may = [], threading.Event()

    def run(_, asked):
        assert may.wait(10)
        ran.append(list(asked))
        return asked

    with working(run, max_batch_size=2) as batcher:
        batcher.submit("first", None, 1, "greedy")
        while batcher.waiting():
            time.sleep(0.001)
        for n in range(6):
            batcher.submit(f"greedy {n}", None, 1, "greedy")
        batcher.submit("large", None, 4, "other")
        batcher.submit("after it", None, 1, "other")
        for name in "one", "two":
            batcher.submit(name, None, 1, name)
        may.set()
        batcher.close()
    assert ran == [
        ["first"],
        ["greedy 0", "one"],
        ["two", "greedy 1"],
        ["large"],  # two batches, so that it is its client's second turn
        ["greedy 2", "after it"],
        ["greedy 3", "greedy 4"],
        ["greedy 5"],
    ]


def test_one_client_leaves_room_in_the_queue_for_others():
    may = threading.Event()

    def run(_, asked):
        assert may.wait(10)
        return asked

    with working(run, max_queue=8) as batcher:
        batcher.submit(0, None, 1, "greedy")
        while batcher.waiting():
            time.sleep(0.001)
        for client, max_batch_size in ("greedy", 4), ("second", 2), ("third", 1), ("fourth", 1):
            for n in range(max_batch_size):
                batcher.submit(n, None, 1, client)
            with pytest.raises(QueueFullError):
                batcher.submit(max_batch_size, None, 1, client)
        may.set()


@pytest.mark.parametrize("error", [BaseException("a panic"), SystemExit(3), StopIteration()])
def test_what_is_no_exception_is_one_requests_answer(error):
    def run(_, asked):
        if 1 in asked:
            raise error
        return asked

    with working(run) as batcher:
        with pytest.raises(SearchError, match=type(error).__name__):
            batcher.submit(1, None, 1).result(10)
        assert batcher.submit(2, None, 1).result(10) == 2
        assert batcher.failure is None


def test_the_end_of_the_thread_answers_all_that_wait():
    may, told = threading.Event(), threading.Event()

    def run(_, asked):
        assert may.wait(10)
        return []  # too few

    with working(run, failed=told.set) as batcher:
        first = batcher.submit(0, None, 1)
        while batcher.waiting():
            time.sleep(0.001)
        second = batcher.submit(1, None, 1)
        may.set()
        for answer in first, second:
            with pytest.raises(ClosedError):
                answer.result(10)
        assert told.wait(10) and isinstance(batcher.failure, ValueError)
        with pytest.raises(ClosedError):
            batcher.submit(2, None, 1)


def test_who_comes_late_takes_its_turn_and_no_more():
    ran, may, step = [], threading.Semaphore(0), threading.Semaphore(0)

    def run(_, asked):
        ran.extend(asked)
        step.release()
        assert may.acquire(timeout=10)
        return asked

    with working(run, max_batch_size=1) as batcher:
        for n in range(6):
            batcher.submit(f"greedy {n}", None, 1, "greedy")
        for n in range(4):  # each a client of its own, which comes while another is searched for
            assert step.acquire(timeout=10)
            batcher.submit(f"late {n}", None, 1, n)
            may.release()
        for _ in range(10):
            may.release()
        batcher.close()
    greedy, late = ([f"{name} {n}" for n in range(6)] for name in ("greedy", "late"))
    assert ran == [
        *(greedy[0], greedy[1], late[0], greedy[2], late[1], late[2]),
        *(greedy[3], late[3], greedy[4], greedy[5]),
    ]
