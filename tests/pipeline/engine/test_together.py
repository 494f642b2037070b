"""Batches that are there at the same time go together; each is done, or raises, when the call that had it has ended."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.engine.batch import MAX_AT_ONCE, Batch
from pipeline.engine.together import CALLS, Together
from pipeline.message import Message


def batch_of(*titles, **fields):
    messages = [Message(source="test", title=title) for title in titles]
    return Batch(**{"job": "deliver", "queue": "out.x", "pipeline": "p", "step": "x", "messages": messages} | fields)


class Work:
    """Notes the titles of each call, and lets none end before it is told to."""

    def __init__(self):
        self.calls, self.error = [], None
        self.may_end = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, batch):
        self.calls.append([message.title for message in batch.messages])
        self.begun.release()
        assert self.may_end.wait(30)
        if self.error:
            raise self.error


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def together():
    """Knows how many wait: a test goes on when those it has sent do."""
    made = Together()

    def waiting(count):
        while sum(map(len, made._waiting.values())) != count:
            threading.Event().wait(0.001)

    made.until_wait = waiting
    return made


def begin(together, pool, work, *batches):
    """Begin as many calls as there may be, and let these batches wait behind them."""
    calls = [pool.submit(together.work, batch_of(f"call {number}"), work) for number in range(CALLS)]
    for _ in calls:
        assert work.begun.acquire(timeout=30)
    behind = []
    for batch in batches:
        behind.append(pool.submit(together.work, batch, work))
        together.until_wait(len(behind))
    return calls, behind


def test_a_batch_alone_waits_for_nothing(together, work):
    work.may_end.set()
    together.work(batch_of("a", "b"), work)
    together.work(batch_of("c"), work)
    assert work.calls == [["a", "b"], ["c"]]
    assert (together._waiting, together._calls) == ({}, {})


def test_what_comes_while_calls_are_under_way_goes_with_the_next(together, pool, work):
    calls, behind = begin(together, pool, work, batch_of("a", "b"), batch_of("c"), batch_of("d"))
    work.may_end.set()
    for one in [*calls, *behind]:
        one.result(30)
    assert sorted(title for call in work.calls[CALLS:] for title in call) == ["a", "b", "c", "d"]
    assert len(work.calls[CALLS:]) == 1
    assert (together._waiting, together._calls) == ({}, {})


@pytest.mark.parametrize("other", [{"step": "y"}, {"attempt": 2}, {"revision": "later"}, {"pipeline": "q"}])
def test_only_batches_that_differ_in_their_messages_alone_go_together(together, pool, work, other):
    calls, _ = begin(together, pool, work)
    elsewhere = pool.submit(together.work, batch_of("a", **other), work)
    assert work.begun.acquire(timeout=30), "it does not wait for the others' calls"
    work.may_end.set()
    for one in [*calls, elsewhere]:
        one.result(30)
    assert work.calls[-1] == ["a"]


def test_a_call_has_no_more_messages_than_it_may(together, pool, work):
    large = [batch_of(*map(str, range(MAX_AT_ONCE - 1))) for _ in range(3)]
    calls, behind = begin(together, pool, work, *large, batch_of("small"))
    work.may_end.set()
    for one in [*calls, *behind]:
        one.result(30)
    assert sorted(map(len, work.calls[CALLS:])) == [MAX_AT_ONCE - 1, MAX_AT_ONCE - 1, MAX_AT_ONCE]


def test_what_a_call_raises_is_raised_for_each_batch_it_had_and_for_no_other(together, pool, work):
    calls, behind = begin(together, pool, work, batch_of("a"), batch_of("b"))
    work.error = OSError("the store is away")
    work.may_end.set()
    for one in [*calls, *behind]:
        with pytest.raises(OSError, match="store"):
            one.result(30)
    work.error = None
    together.work(batch_of("c"), work)
    assert work.calls[-1] == ["c"]
