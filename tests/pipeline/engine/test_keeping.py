"""What a pipeline keeps: each message as it was accepted, once, from the moment it was worked on, for as long as is said."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline import Consumer, Filter, NoOptions, TemporaryError
from pipeline.condition import Condition
from pipeline.engine.clock import Clock
from pipeline.spec.model import Keep
from pipeline.store import StoreAway

DAY = Keep(timedelta(days=1))
tried: set[str] = set()
"""The messages that came to somebody who could not take them then."""


class Box(Consumer[NoOptions]):
    """Takes what it gets."""

    def consume(self, message):
        pass


class Away(Consumer[NoOptions]):
    """Is not there, the first time."""

    def consume(self, message):
        if message.id not in tried:
            tried.add(message.id)
            raise TemporaryError("away")


class Louder(Filter[NoOptions]):
    """Changes the title, and drops some."""

    def filter(self, message):
        if message.title != "dropped":
            yield message.replace(title=message.title.upper())


class Late(Filter[NoOptions]):
    """Cannot work, the first time."""

    def filter(self, message):
        if message.id not in tried:
            tried.add(message.id)
            raise TemporaryError("later")
        yield message


def kept(run):
    return [(one.message.title, one.at) for one in run.store.accepted.between("toy", newest=1000)]


def test_a_message_is_kept_as_it_came_even_if_it_is_dropped(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Louder)], consumers=[consumer(Box)], keep=DAY)
    run.send(message(title="passed"), message(title="dropped"))
    assert kept(run) == []
    run.work()
    assert sorted(kept(run)) == [("dropped", run.moment[0]), ("passed", run.moment[0])]


@pytest.mark.parametrize("consumers", [1, 2], ids=["straight to the consumer", "to two consumers"])
def test_a_pipeline_without_filters_keeps_them_too(engine, consumer, message, consumers):
    steps = [consumer(Box, label=f"box-{number}") for number in range(consumers)]
    run = engine(consumers=steps, keep=DAY)
    assert (next(iter(run.runner.pipelines)).straight is None) == (consumers == 2)
    run.send(message(title="a"))
    run.work()
    assert kept(run) == [("a", run.moment[0])]


def test_a_pipeline_without_keep_keeps_nothing(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Louder)], consumers=[consumer(Box)])
    run.send(message(title="a"))
    run.work()
    assert kept(run) == []


def test_ordered_pipelines_keep_them(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Louder)], consumers=[consumer(Box, ordered=True)], keep=DAY)
    run.send(*(message(title=str(number), key="k") for number in range(3)))
    run.work()
    assert [title for title, _ in kept(run)] == ["0", "1", "2"]


@pytest.mark.parametrize("late", ["filter", "consumer", "straight"])
def test_what_is_tried_again_is_kept_once_as_of_the_first_time(engine, filter_step, consumer, message, late):
    filters = {"filter": [filter_step(Late)], "consumer": [filter_step(Louder)], "straight": []}[late]
    run = engine(filters=filters, consumers=[consumer(Box if late == "filter" else Away)], keep=DAY)
    first = run.moment[0]
    run.send(message(title="a"))
    run.work()
    assert kept(run) == [("a", first)]
    run.later(minutes=10)
    assert run.runner.store.counts()[("toy", "box" if late == "filter" else "away", "delivered")] == 1
    assert kept(run) == [("a", first)]


def test_a_batch_that_comes_again_changes_nothing(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Louder)], consumers=[consumer(Box)], keep=DAY)
    one, first = message(title="a"), run.moment[0]
    run.send(one)
    run.work()
    run.moment[0] += timedelta(minutes=5)
    run.send(one)
    run.work()
    assert kept(run) == [("a", first)]


def test_of_a_store_that_is_away_nothing_is_half_done(engine, filter_step, consumer, message, monkeypatch):
    run = engine(filters=[filter_step(Louder)], consumers=[consumer(Box)], keep=DAY)
    run.send(message(title="a"))
    (batch,) = run.queue.take()

    def away(**_):
        raise StoreAway("away")

    with monkeypatch.context() as patched:
        patched.setattr(run.store, "settle", away)
        with pytest.raises(StoreAway):
            run.runner.run(batch)
    assert run.queue.take() == []
    run.runner.run(batch)
    assert [title for title, _ in kept(run)] == ["a"]


def test_the_clock_forgets_them_by_age_and_by_number(engine, filter_step, consumer, message):
    keep = Keep(timedelta(hours=3), most=4)
    run = engine(filters=[filter_step(Louder, when=Condition("title == 'x'"))], consumers=[consumer(Box)], keep=keep)
    for hour in range(5):
        run.send(message(title=f"{hour}a"), message(title=f"{hour}b"))
        run.work()
        run.moment[0] += timedelta(hours=1)
    assert len(kept(run)) == 10
    Clock(run.runner, owner="test", retention=timedelta(days=7)).tick()
    assert [title for title, _ in kept(run)] == ["3a", "3b", "4a", "4b"]
    run.moment[0] += timedelta(hours=1, minutes=30)
    Clock(run.runner, owner="test", retention=timedelta(days=7)).tick()
    assert [title for title, _ in kept(run)] == ["4a", "4b"]


def test_what_a_pipeline_kept_that_keeps_no_more_is_forgotten_at_once(engine, consumer, message):
    run = engine(consumers=[consumer(Box)], keep=DAY)
    run.send(message(title="a"))
    run.work()
    assert kept(run) == [("a", run.moment[0])]
    run.moment[0] += timedelta(seconds=1)
    off = engine(consumers=[consumer(Box)])
    off.moment[0] = run.moment[0]
    Clock(off.runner, owner="test", retention=timedelta(days=7)).tick()
    assert kept(off) == []


def test_what_a_pipeline_kept_that_is_gone_goes_with_the_records(engine, store, consumer, message):
    run = engine(consumers=[consumer(Box)], keep=DAY)
    run.send(message(title="a"))
    run.work()
    other = engine(consumers=[consumer(Box)])
    other.runner.pipelines._pipelines = {}
    for days, left in ((6, 1), (2, 0)):
        other.moment[0] += timedelta(days=days)
        Clock(other.runner, owner="test", retention=timedelta(days=7)).tick()
        assert len(kept(run)) == left
