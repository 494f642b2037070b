"""Clocks that share a store: a window that takes long stays its clock's, and several clocks tell of everything once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from trees import until

from pipeline import Keep, Message, NoOptions, Window, WindowFilter
from pipeline.engine import clock as clocks
from pipeline.engine.clock import LEASE, Clock
from pipeline.engine.routes import incoming
from pipeline.store import Store

SECOND = timedelta(seconds=1)


class Slow(WindowFilter[NoOptions]):
    """Lets go of a window when it is told to."""

    opening, go_on = threading.Event(), threading.Event()

    def window(self, message, now, memory):
        return Window(message.key, now)

    def release(self, opened):
        if opened.key == "slow":
            Slow.opening.set()
            assert Slow.go_on.wait(30)
        yield from opened.messages


class Sum(WindowFilter[NoOptions]):
    """Keeps what came of each key, and tells how much that is by now."""

    def window(self, message, now, memory):
        return Window(message.key, now)

    def release(self, opened):
        known = [*(opened.kept or []), *(message.title for message in opened.messages)]
        yield Message(source="sum", title=f"{opened.key}: {len(known)}", data=known)
        yield Keep(known, opened.now + timedelta(days=1))


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}" if request.param == "sqlite" else request.getfixturevalue("empty_postgres")
    made = Store(url)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def slow(monkeypatch, in_thread):  # it is set free before its threads are waited for
    monkeypatch.setattr(Slow, "opening", threading.Event())
    monkeypatch.setattr(Slow, "go_on", threading.Event())
    yield Slow
    Slow.go_on.set()


@pytest.fixture
def in_thread():
    threads = []

    def start(work):
        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(30)


def ticks(clock):
    while clock.tick():
        pass


def test_a_window_that_takes_longer_than_the_lease_stays_its_clocks(
    engine, filter_step, consumer, box, message, slow, in_thread, monkeypatch
):
    monkeypatch.setattr(clocks, "RENEWED", 0.01)
    run = engine(filters=[filter_step(Slow)], consumers=[consumer(box)])
    other = Clock(run.runner, owner="other", retention=timedelta(days=1))
    run.send(message(key="slow", title="slow"))
    run.work()
    working = in_thread(lambda: ticks(run.clock))
    assert slow.opening.wait(30)
    for _ in range(4):
        run.moment[0] += LEASE - SECOND
        until(lambda: run.store.next_due() >= run.moment[0] + LEASE, "the lease is renewed")
        ticks(other)
    run.send(message(key="k", title="quick"))
    run.work()
    ticks(other)
    run.work()
    assert [one.title for one in box.got] == ["quick"], "what comes meanwhile is another clock's"
    slow.go_on.set()
    working.join(30)
    run.work()
    assert [one.title for one in box.got] == ["quick", "slow"]
    assert run.store.held_counts() == {}


def test_a_filter_that_never_comes_back_keeps_its_window_no_longer_than_is_meant(
    engine, filter_step, consumer, box, message, slow, in_thread, monkeypatch
):
    monkeypatch.setattr(clocks, "RENEWED", 0.01)
    run = engine(filters=[filter_step(Slow)], consumers=[consumer(box)])
    run.send(message(key="slow"))
    run.work()
    in_thread(lambda: ticks(run.clock))
    assert slow.opening.wait(30)
    run.moment[0] += clocks.RENEWED_FOR
    before = run.store.next_due()
    run.moment[0] += LEASE
    assert run.store.next_due() == before
    assert len(run.store.claim_due(run.moment[0], owner="other", lease=LEASE, limit=10)) == 1


def test_a_large_window_comes_behind_the_small_ones(engine, filter_step, consumer, box, message, monkeypatch):
    monkeypatch.setattr(clocks, "TOGETHER", 3)
    run = engine(filters=[filter_step(Sum)], consumers=[consumer(box)])
    run.send(*(message(key="a large one", title=str(number)) for number in range(5)))
    run.send(*(message(key=f"small {number}") for number in range(4)))
    run.work()
    ticks(run.clock)
    run.work()
    assert [one.title for one in box.got][-1] == "a large one: 5"
    assert len(box.got) == 5


def test_three_clocks_at_once_tell_of_everything_once(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Sum)], consumers=[consumer(box)])
    several = [Clock(run.runner, owner=f"clock {number}", retention=timedelta(days=1)) for number in range(3)]
    stopping = threading.Event()

    def tick(clock):
        while not stopping.is_set():
            clock.tick()

    sent = [message(key=f"k{number % 7}", title=str(number)) for number in range(280)]
    with ThreadPoolExecutor(len(several)) as pool:
        ticking = [pool.submit(tick, clock) for clock in several]
        for some in range(0, len(sent), 7):
            run.runner.run(incoming(next(iter(run.runner.pipelines)), sent[some : some + 7])[0])
        until(lambda: not run.store.held_counts() or any(one.done() for one in ticking), "all are opened")
        stopping.set()
        assert [one.result() for one in ticking] == [None] * 3
    run.work()
    assert len({one.id for one in box.got}) == len(box.got)
    for key in range(7):
        news = [one.data for one in box.got if one.title.startswith(f"k{key}:")]
        assert sorted(max(news, key=len), key=int) == [one.title for one in sent if one.key == f"k{key}"], "each came in once"
        assert len({len(one) for one in news}) == len(news), "no two clocks went on from the same state"
