"""What is forgotten: records that are older than they are kept, or more than are kept, and never what is still needed."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from pipeline import Consumer, NoOptions, TemporaryError
from pipeline.engine import clock as module
from pipeline.engine.clock import RECORDS_STAY, Clock
from pipeline.spec.model import Retry


class Box(Consumer[NoOptions]):
    """Takes what it gets."""

    def consume(self, message):
        pass


class Away(Consumer[NoOptions]):
    """Is never there."""

    def consume(self, message):
        raise TemporaryError("away", retry_after=86_400)


@pytest.fixture
def hours(engine, consumer, message):
    """Sends ten messages in each of some hours, and gives all of them."""

    def make(run, count):
        sent = []
        for _ in range(count):
            made = [message() for _ in range(10)]
            run.send(*made)
            run.work()
            sent += made
            run.moment[0] += timedelta(hours=1)
        return sent

    return make


def left(run, sent):
    return [bool(run.store.history(one.id)) for one in sent]


def test_more_records_than_are_kept_are_forgotten_the_oldest_first(engine, consumer, hours):
    run = engine(consumers=[consumer(Box)])
    sent = hours(run, 5)
    Clock(run.runner, owner="test", retention=timedelta(days=7), most_records=50).tick()
    assert left(run, sent) == [True] * 50
    Clock(run.runner, owner="test", retention=timedelta(days=7), most_records=20).tick()
    assert left(run, sent) == [False] * 30 + [True] * 20
    assert sum(run.store.counts().values()) == 20


def test_young_records_stay_however_many_there_are(engine, consumer, hours):
    run = engine(consumers=[consumer(Box)])
    sent = hours(run, 3)
    run.moment[0] -= RECORDS_STAY / 2
    Clock(run.runner, owner="test", retention=timedelta(seconds=1), most_records=1).tick()
    assert left(run, sent) == [False] * 20 + [True] * 10


def test_the_record_of_what_is_held_stays_and_says_since_when_it_fails(engine, consumer, message):
    run = engine(consumers=[consumer(Away, retry=Retry(timedelta(days=10)))])
    run.clock = Clock(run.runner, owner="test", retention=timedelta(days=7), most_records=1)
    one = message()
    run.send(one)
    run.work()
    for _ in range(4):
        run.later(days=2)
    (record,) = run.store.history(one.id)
    assert record.attempt > 3
    assert record.since == run.moment[0] - timedelta(days=8)
    run.later(days=2)
    run.later(days=2)
    assert len(run.store.dead_letters()) == 1
    run.later(days=8)
    assert run.store.history(one.id) == []
    assert len(run.store.dead_letters()) == 1


def test_much_is_forgotten_in_steps_and_by_two_clocks_at_once(engine, consumer, hours, monkeypatch):
    monkeypatch.setattr(module, "PURGE_AT_ONCE", 7)
    run = engine(consumers=[consumer(Box)])
    sent = hours(run, 6)
    clocks = [Clock(run.runner, owner=str(n), retention=timedelta(days=7), most_records=10) for n in range(2)]
    for clock in clocks:
        clock.tick()
    assert left(run, sent).count(False) == 14
    threads = [threading.Thread(target=lambda clock=clock: [clock.tick() for _ in range(10)]) for clock in clocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left(run, sent) == [False] * 50 + [True] * 10
