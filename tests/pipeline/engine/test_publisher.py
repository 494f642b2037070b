"""The publisher: natural batching, and an answer for every request whatever happens to broker and store."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from trees import until

from pipeline import Config, Consumer, TemporaryError
from pipeline.engine import publisher as module
from pipeline.engine.decisions import utc_now
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.publisher import Publisher
from pipeline.engine.written import TOGETHER, write
from pipeline.store.rows import Why


class Sink(Consumer[Config]):
    def consume(self, message):
        pass


@pytest.fixture
def publisher(queue, store):
    made = Publisher(queue, store)
    yield made
    made.close()


@pytest.fixture
def pipeline(engine):
    return engine().runner.pipelines["toy"]


def hold_first(queue):
    """Have the first publish wait; gives the event that it has begun, and the one that lets it go."""
    entered, go = threading.Event(), threading.Event()

    def hold():
        if not entered.is_set():
            entered.set()
            go.wait(20)

    queue.before = hold
    return entered, go


def test_accepted_means_on_the_queue(publisher, queue, pipeline, message, hand_in):
    one = message()
    hand_in(publisher, pipeline, "http", [one]).result(timeout=5)
    (batch,) = queue.batches
    assert (batch.job, batch.queue, batch.pipeline, batch.revision, batch.messages) == ("process", "in", "toy", "r1", [one])


def test_what_waits_while_a_publish_is_under_way_goes_out_as_one(publisher, queue, pipeline, message, hand_in):
    entered, go = threading.Event(), threading.Event()

    def hold():
        entered.set()
        go.wait(5)

    queue.before = hold
    first = hand_in(publisher, pipeline, "http", [message()])
    assert entered.wait(5)
    rest = [hand_in(publisher, pipeline, "http", [message()]) for _ in range(20)]
    assert not first.done()
    go.set()
    for future in [first, *rest]:
        future.result(timeout=5)
    assert [len(batch.messages) for batch in queue.batches] == [1, 20]
    assert queue.calls == 2


def test_behind_a_crowd_the_next_requests_gather_until_as_many_are_there(
    publisher, queue, pipeline, message, monkeypatch, hand_in
):
    number = module.CROWD
    monkeypatch.setattr(module, "_pause", lambda taken, _: 60.0 if len(taken) > 1 else 0.0)
    entered, go = hold_first(queue)
    first = hand_in(publisher, pipeline, "http", [message()])
    assert entered.wait(5)
    crowd = [hand_in(publisher, pipeline, "http", [message()]) for _ in range(number)]
    go.set()
    for future in [first, *crowd]:
        future.result(timeout=5)
    again = [hand_in(publisher, pipeline, "http", [message()]) for _ in range(number)]
    for future in again:
        future.result(timeout=5)
    assert [len(batch.messages) for batch in queue.batches] == [1, number, number]


def test_what_gathers_goes_out_when_the_time_is_up(publisher, queue, pipeline, message, monkeypatch, hand_in):
    monkeypatch.setattr(module, "_pause", lambda *_: 0.01)
    for _ in range(2):
        hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
    entered, go = hold_first(queue)
    alone = hand_in(publisher, pipeline, "http", [message()])
    assert entered.wait(5)
    both = [hand_in(publisher, pipeline, "http", [message()]) for _ in range(2)]
    go.set()
    for future in [alone, *both, hand_in(publisher, pipeline, "http", [message()])]:
        future.result(timeout=5)


@pytest.mark.parametrize(
    ("requests", "each", "took", "pause"),
    [
        (1, 1, 0.002, 0.0),
        (1, 16, 0.002, 0.0),
        (2, 1, 0.002, 0.002),
        (15, 1, 0.004, module.GAP),
        (2, 10, 0.002, 0.0),  # arrays: enough for a publish
        (16, 1, 0.0005, module.GAP - 0.0005),
        (16, 10, 0.002, 0.004),
        (64, 1, 0.05, module.LONGEST),
        (64, 100, 0.002, 0.0),  # enough for a publish of its own
    ],
)
def test_how_long_the_next_requests_gather(requests, each, took, pause):
    taken = [SimpleNamespace(number=each)] * requests
    assert module._pause(taken, took) == pytest.approx(pause)


def test_what_is_enough_for_a_publish_of_its_own_goes_out_beside_another(
    publisher, queue, pipeline, message, monkeypatch, hand_in
):
    monkeypatch.setattr(module, "FULL", 3)
    entered, go = hold_first(queue)
    first = hand_in(publisher, pipeline, "http", [message()])
    assert entered.wait(5)
    two = hand_in(publisher, pipeline, "http", [message(), message()])
    one = hand_in(publisher, pipeline, "http", [message()])
    for future in (two, one):
        future.result(timeout=5)
    assert not first.done()
    few = hand_in(publisher, pipeline, "http", [message()])
    go.set()
    for future in (first, few):
        future.result(timeout=5)
    assert [len(batch.messages) for batch in queue.batches] == [3, 1, 1]


def test_a_publish_that_is_late_does_not_keep_the_other_from_its_end(queue, store, pipeline, message, monkeypatch, hand_in):
    monkeypatch.setattr(module, "FULL", 2)
    publisher = Publisher(queue, store, timeout=0.5)
    entered, go = hold_first(queue)
    slow = hand_in(publisher, pipeline, "http", [message()])
    assert entered.wait(5)
    hand_in(publisher, pipeline, "http", [message(), message()]).result(timeout=5)
    assert [len(batch.messages) for batch in queue.batches] == [2]
    slow.result(timeout=5)
    assert sum(store.held_counts().values()) == 1, "it went to the spool"
    go.set()
    publisher.close()


def test_whoever_gave_up_is_not_told_and_those_beside_are(publisher, queue, pipeline, message, hand_in):
    entered, go = threading.Event(), threading.Event()
    queue.before = lambda: entered.set() or go.wait(5)
    first = hand_in(publisher, pipeline, "http", [message()])
    assert entered.wait(5)
    gave_up = hand_in(publisher, pipeline, "http", [message()])
    waits = hand_in(publisher, pipeline, "http", [message()])
    gave_up.cancel()
    go.set()
    first.result(timeout=5)
    waits.result(timeout=5)
    assert len(queue.batches[1].messages) == 2, "they may be accepted still"


def test_a_loop_that_is_gone_does_not_stop_the_publisher(publisher, queue, pipeline, message, hand_in):
    entered, go = threading.Event(), threading.Event()
    queue.before = lambda: entered.set() or go.wait(5)

    async def leave():
        publisher.submit(pipeline, "http", write([message()], publisher.largest))

    asyncio.run(leave())
    assert entered.wait(5)
    go.set()
    hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
    assert len(queue.batches) == 2


def test_the_broker_away_means_the_spool(publisher, queue, store, pipeline, message, hand_in):
    queue.away = True
    for _ in range(3):
        hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
    assert sum(store.held_counts().values()) == 3
    assert queue.calls == 1, "after a failure the broker is left alone for a moment"


@pytest.fixture
def ordered(pipeline, consumer):
    """A pipeline whose messages stand in line."""
    return Pipeline(replace(pipeline.spec, name="line", consumers=(consumer(Sink, ordered=True),)))


@pytest.fixture
def handed(message):
    """What two requests hand in."""
    many = [
        message(title=f"ä {number}", labels={"n": str(number)}, data={"n": [number, None]}) for number in range(TOGETHER + 10)
    ]
    return many, [message(title="alone")]


def test_what_is_spooled_is_what_was_handed_in(publisher, queue, store, pipeline, handed, hand_in):
    queue.away = True
    for messages in handed:
        hand_in(publisher, pipeline, "http", messages).result(timeout=5)
    claims = store.claim_due(utc_now(), owner="test", lease=timedelta(minutes=1), limit=100)
    assert {claim.held.message.id: claim.held.message for claim in claims} == {one.id: one for some in handed for one in some}


def test_what_stands_in_line_is_what_was_handed_in_in_that_order(
    publisher, queue, store, pipeline, ordered, handed, monkeypatch, hand_in
):
    lined = []
    monkeypatch.setattr(store, "settle", lambda **told: lined.extend(told["lined"]))
    entered, go = hold_first(queue)
    first = hand_in(publisher, pipeline, "http", handed[1])
    assert entered.wait(5)
    both = [hand_in(publisher, ordered, "http", messages) for messages in handed]
    go.set()
    for future in (first, *both):
        future.result(timeout=5)
    assert [one.message for one in lined] == [one for some in handed for one in some]


def test_a_broker_that_does_not_answer_in_time_means_the_spool_until_it_does(queue, store, pipeline, message, hand_in):
    publisher = Publisher(queue, store, timeout=0.05)
    go = threading.Event()
    queue.before = lambda: go.wait(20)
    for _ in range(3):
        hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
    assert sum(store.held_counts().values()) == 3
    assert queue.calls == 1, "until it has answered, nobody asks it again"
    go.set()
    publisher.close()
    assert len(queue.batches) == 1, "what it took in the end comes twice"


def test_a_broker_that_has_answered_late_is_asked_again(publisher, queue, store, pipeline, message, hand_in):
    publisher._timeout = 0.05
    answered = threading.Event()
    queue.before = lambda: answered.wait(20)
    hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
    publisher._timeout = 5
    assert publisher._late
    answered.set()
    until(lambda: not publisher._late, "the broker has answered")
    hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
    assert queue.calls == 2
    assert sum(store.held_counts().values()) == 1


def test_however_many_publishes_are_late_the_next_ones_are_answered(queue, store, pipeline, message, hand_in):
    publisher = Publisher(queue, store, timeout=0.05)
    for times in range(module.AT_ONCE + 1):
        entered, go = threading.Event(), threading.Event()
        queue.before = lambda entered=entered, go=go: entered.set() or go.wait(20)
        hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
        assert entered.is_set(), "the broker was asked"
        assert sum(store.held_counts().values()) == times + 1
        go.set()
        until(lambda: not publisher._late, "the broker has answered")
    publisher._timeout = 5
    queue.before = lambda: None
    hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
    assert sum(store.held_counts().values()) == module.AT_ONCE + 1
    assert len([one for one in publisher._threads if one.is_alive()]) == module.AT_ONCE
    publisher.close()


def test_where_no_thread_can_be_started_the_one_that_was_late_goes_on(
    queue, store, pipeline, message, hand_in, monkeypatch, capsys
):
    publisher = Publisher(queue, store, timeout=0.05)
    monkeypatch.setattr(module.threading.Thread, "start", refuse)
    for _ in range(module.AT_ONCE + 1):
        go = threading.Event()
        queue.before = lambda go=go: go.wait(20)
        hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
        go.set()
        until(lambda: not publisher._late, "the broker has answered")
    assert sum(store.held_counts().values()) == module.AT_ONCE + 1
    assert "one thread less publishes" in capsys.readouterr().out
    monkeypatch.undo()
    publisher.close()


def refuse(_):
    raise RuntimeError("can't start new thread")


def test_a_late_publish_keeps_nothing_from_standing_in_line(queue, store, pipeline, ordered, message, hand_in):
    publisher = Publisher(queue, store, timeout=0.2)
    entered, first, second = threading.Event(), threading.Event(), threading.Event()
    waits = iter([first, second])
    queue.before = lambda: entered.set() or next(waits).wait(20)
    alone = hand_in(publisher, pipeline, "http", [message()])
    assert entered.wait(5)
    both = [hand_in(publisher, one, "http", [message()]) for one in (pipeline, ordered)]
    first.set()
    for future in (alone, *both):
        future.result(timeout=5)
    assert store.held_counts() == {("toy", "", Why.SPOOL): 1, ("line", "", Why.ORDER): 1}
    second.set()
    publisher.close()


def test_the_store_away_too_means_refused(publisher, queue, store, pipeline, message, monkeypatch, hand_in):
    def away(**_):
        raise TemporaryError("the store is away")

    monkeypatch.setattr(store, "settle", away)
    queue.away = True
    with pytest.raises(TemporaryError, match="the store is away"):
        hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)


def test_a_surprise_reaches_the_requests_and_the_publisher_goes_on(publisher, queue, pipeline, message, hand_in):
    def surprise():
        raise ZeroDivisionError

    queue.before = surprise
    with pytest.raises(ZeroDivisionError):
        hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
    queue.before = lambda: None
    hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)


def test_too_many_waiting_are_refused_at_once(publisher, queue, pipeline, message, monkeypatch, hand_in):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    entered, go = threading.Event(), threading.Event()

    def hold():
        entered.set()
        go.wait(5)

    queue.before = hold
    first = hand_in(publisher, pipeline, "http", [message()])
    assert entered.wait(5)
    waiting = hand_in(publisher, pipeline, "http", [message()] * 3)
    refused = hand_in(publisher, pipeline, "http", [message()])
    with pytest.raises(TemporaryError) as caught:
        refused.result(timeout=5)
    assert caught.value.retry_after == 1
    go.set()
    first.result(timeout=5)
    waiting.result(timeout=5)


def test_closing_publishes_what_was_handed_in_and_refuses_the_rest(queue, store, pipeline, message, hand_in):
    publisher = Publisher(queue, store)
    handed = [hand_in(publisher, pipeline, "http", [message()]) for _ in range(5)]
    publisher.close()
    for future in handed:
        future.result(timeout=5)
    with pytest.raises(TemporaryError, match="stopping"):
        hand_in(publisher, pipeline, "http", [message()]).result(timeout=5)
