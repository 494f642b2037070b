"""Whether a message reached anybody: followed through what it became, asked seldom, and never answered too late."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event

from pipeline import (
    Consumer,
    Dropped,
    Filter,
    NoOptions,
    PermanentError,
    RememberingFilter,
    TemporaryError,
    Window,
    WindowFilter,
)
from pipeline.engine import fate
from pipeline.engine.redrive import Redrive
from pipeline.spec.model import Retry
from pipeline.store import Outcome, Record
from pipeline.store.selection import Selection


class Once(RememberingFilter[NoOptions]):
    """Lets a title pass until one of its messages has reached somebody, or may yet."""

    def filter(self, message, memory):
        told = memory.recall(message.title)
        if told is None or self.lost(told):
            memory.remember(message.title, message.id, timedelta(days=1))
            yield message


class Does(Filter[NoOptions]):
    """Does what a message's label says."""

    def filter(self, message):
        does = message.labels.get("does", "")
        if does == "drop":
            yield Dropped("it is to be")
        elif does == "bury":
            raise PermanentError("it is to be")
        elif does == "later":
            raise TemporaryError("not now")
        elif does.startswith("split"):
            for part in does.split()[1:]:
                yield message.replace(labels={"at": part})
        else:
            yield message


class Gather(WindowFilter[NoOptions]):
    """Lets what is to be gathered wait, and leave as one."""

    def window(self, message, now, memory):
        return Window("k", now + timedelta(minutes=1)) if message.labels.get("does") == "gather" else None

    def release(self, opened):
        yield opened.messages[0].replace(labels={"at": opened.messages[-1].labels["then"]})


class Sink(Consumer[NoOptions]):
    """Takes what is not to be refused."""

    def consume(self, message):
        if "refused" in message.labels["at"]:
            raise PermanentError("never")
        if "away" in message.labels["at"]:
            raise TemporaryError("not now")


class Other(Consumer[NoOptions]):
    """Takes what is for it."""

    def consume(self, message):
        if "never" in message.labels["at"]:
            raise PermanentError("never")


@pytest.fixture
def run(engine, filter_step, consumer):
    return engine(
        filters=[filter_step(Once, when='title != ""'), filter_step(Does), filter_step(Gather)],
        consumers=[
            consumer(Sink, when='labels.at != "nobody"', retry=Retry(lasting=timedelta(minutes=10))),
            consumer(Other, when='labels.at.contains("other")'),
        ],
    )


@pytest.fixture
def lost(run):
    return lambda message: run.runner.fates.lost(run.runner.pipelines["toy"], message.id)


@pytest.fixture
def send(run, message):
    def send(does="", at="", title="", **labels):
        one = message(title=title, labels={"does": does, "at": at} | labels)
        run.send(one)
        run.work()
        return one

    return send


@pytest.mark.parametrize(
    ("does", "at", "answer"),
    [
        ("", "", False),
        ("", "other", False),
        ("", "nobody", True),
        ("", "refused", True),
        ("", "refused other", False),
        ("", "refused other never", True),
        ("", "never other", False),
        ("", "away", False),
        ("drop", "", True),
        ("bury", "", True),
        ("later", "", False),
        ("split sink sink", "", False),
        ("split refused sink", "", False),
        ("split sink refused", "", False),
        ("split refused nobody", "", True),
        ("split refused away", "", False),
    ],
)
def test_what_became_of_a_message(send, lost, does, at, answer):
    assert lost(send(does, at)) is answer


def test_a_message_of_which_nothing_is_on_record_is_on_its_way(run, message, lost):
    one = message(labels={"at": ""})
    assert not lost(one)
    run.send(one)
    assert not lost(one)
    (batch,) = run.queue.take()
    run.runner.run(batch)
    assert not lost(one), "the consumers' queues have it"


def test_what_waited_and_was_tried_again_is_followed_to_its_end(run, send, lost):
    one = send("later", "refused")
    assert not lost(one)
    Does.filter, before = (lambda _self, message: [message]), Does.filter
    try:
        run.later(minutes=1)
    finally:
        Does.filter = before
    assert run.outcomes(one) == {"does": "held", "sink": "buried", "other": "dropped"}
    assert lost(one)


def test_it_is_lost_when_nobody_tries_any_more(run, send, lost):
    one = send(at="away")
    for _ in range(20):
        assert lost(one) is (run.outcomes(one)["sink"] == "buried")
        run.later(minutes=1)
    assert lost(one)


@pytest.mark.parametrize(("then", "answer"), [("", False), ("refused", True)])
def test_a_message_is_followed_through_what_left_a_window_in_its_place(run, send, lost, then, answer):
    one, two = send("gather", then="x"), send("gather", then=then)
    assert not lost(one)
    run.later(minutes=1)
    assert lost(one) is answer
    assert lost(two) is answer


def test_a_letter_that_is_redriven_is_on_its_way_again(run, send, lost):
    one = send(at="refused")
    assert lost(one)
    run.moment[0] += timedelta(seconds=1)
    list(Redrive(run.runner.pipelines, run.store, now=run.runner.now).run(Selection()))
    assert not lost(one)


def test_a_filter_is_told_of_its_own_pipeline(run, send, message):
    assert run.outcomes(send(title="a", at="refused"))["sink"] == "buried"
    run.moment[0] += timedelta(seconds=1)
    assert run.outcomes(send(title="a"))["sink"] == "delivered"
    assert run.outcomes(send(title="a")) == {"once": "dropped"}


def test_records_of_another_pipeline_say_nothing(run, message, lost):
    one = message()
    run.store.settle(records=[record(one, "does", Outcome.DROPPED, pipeline="other")])
    assert not lost(one)


@pytest.mark.parametrize(("outcome", "answer"), [(Outcome.BURIED, True), (Outcome.DROPPED, True), (Outcome.HELD, False)])
@pytest.mark.parametrize("step", ["", "gone"])
def test_a_place_that_the_configuration_does_not_have(run, message, lost, step, outcome, answer):
    one = message()
    run.store.settle(records=[record(one, step, outcome)])
    assert lost(one) is answer


def test_what_became_something_that_nobody_knows_is_on_its_way(run, message, lost):
    one, other = message(), message()
    run.store.settle(records=[record(one, "does", Outcome.REPLACED, became=(other.id,))])
    assert not lost(one)
    run.moment[0] += timedelta(seconds=1)
    run.store.settle(records=[record(other, "gather", Outcome.DROPPED)])
    assert lost(one)


def test_a_circle_has_an_end(run, message, lost):
    one, other = message(), message()
    run.store.settle(records=[record(a, "does", Outcome.REPLACED, became=(b.id,)) for a, b in ((one, other), (other, one))])
    assert lost(one)


def record(message, step, outcome, *, pipeline="toy", became=()):
    return Record(message_id=message.id, pipeline=pipeline, step=step, outcome=outcome, at=message.time, became=became)


@pytest.fixture
def reads(run):
    found = []
    event.listen(run.store._database.engine, "before_cursor_execute", lambda *call: found.append(call[2]))
    return found


def test_what_reached_somebody_is_asked_once_and_what_is_open_once_a_second(run, send, lost, reads):
    told, waits = send(), send(at="away")
    reads.clear()
    for _ in range(10):
        assert not lost(told)
        assert not lost(waits)
    assert len(reads) == 2
    for _ in range(3):
        run.moment[0] += timedelta(seconds=1)
        for _ in range(10):
            assert not lost(told)
            assert not lost(waits)
    assert len(reads) == 5
    run.moment[0] -= timedelta(hours=1)
    assert not lost(waits)
    assert len(reads) == 6, "a clock that was set back"


def test_many_parts_are_one_look_for_each_generation(send, lost, reads):
    one = send("split " + "refused " * 100)
    reads.clear()
    assert lost(one)
    assert len(reads) == 2


def test_what_is_kept_of_answers_has_a_bound(run, send, lost, monkeypatch):
    monkeypatch.setattr(fate, "MOST_KNOWN", 3)
    for _ in range(10):
        assert not lost(send())
        assert len(run.runner.fates._known) <= 3


def test_a_store_that_is_away_is_no_answer(run, send, lost, monkeypatch):
    one = send()

    def away(*_args):
        raise TemporaryError("the store is away")

    monkeypatch.setattr(run.store, "histories", away)
    with pytest.raises(TemporaryError):
        lost(one)
