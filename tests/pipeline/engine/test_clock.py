"""The clock: windows, schedules, spool and retention, each once however many clocks run."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

import pytest
from trees import until

from pipeline import (
    ListeningProducer,
    NoOptions,
    PermanentError,
    PollingProducer,
    TemporaryError,
    Unreadable,
    Window,
    WindowFilter,
)
from pipeline.engine import clock as module
from pipeline.engine import listeners, polls
from pipeline.engine.batch import encode
from pipeline.engine.clock import Clock
from pipeline.engine.publisher import Publisher
from pipeline.engine.redrive import place
from pipeline.store.rows import Why


class Together(WindowFilter[NoOptions]):
    """Lets messages of a key wait half a minute and makes one of them; critical ones pass."""

    broken = False

    def window(self, message, now, memory):
        return None if message.severity == "critical" else Window(message.key, now + timedelta(seconds=30))

    def release(self, opened):
        key, messages = opened.key, opened.messages
        if Together.broken:
            raise RuntimeError("oh")
        if key == "nothing":
            return []
        if key == "same":
            return messages[:1]
        return [messages[0].replace(id=type(messages[0])(source="new").id, title=" ".join(m.title for m in messages))]


class Every:
    """A schedule: each full minute."""

    def after(self, moment):
        return moment.replace(second=0, microsecond=0) + timedelta(minutes=1)


def test_a_window_holds_messages_by_key_until_the_first_is_due(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    first, second = message(key="k", title="a"), message(key="k", title="b")
    run.send(first)
    run.work()
    run.later(seconds=20)
    run.send(second, message(key="x", title="c"), message(key="k", title="now", severity="critical"))
    run.work()
    assert [m.title for m in box.got] == ["now"]
    run.later(seconds=11)
    assert [m.title for m in box.got] == ["now", "a b"]
    assert run.outcomes(first) == {"together": "replaced"}
    run.later(seconds=20)
    assert [m.title for m in box.got] == ["now", "a b", "c"]
    assert run.store.held_counts() == {}


def test_what_leaves_a_window_as_itself_or_not_at_all(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    kept, merged, dropped = message(key="same"), message(key="same"), message(key="nothing")
    run.send(kept, merged, dropped)
    run.work()
    run.later(seconds=31)
    assert [m.id for m in box.got] == [kept.id]
    assert run.outcomes(merged) == {"together": "replaced"}
    assert run.outcomes(dropped) == {"together": "dropped"}


def test_a_bug_in_a_window_buries_its_messages(engine, filter_step, consumer, box, message, monkeypatch):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    run.send(message(key="k"), message(key="k"))
    run.work()
    monkeypatch.setattr(Together, "broken", True)
    run.later(seconds=31)
    assert [letter.error for letter in run.store.dead_letters()] == ["RuntimeError: oh"] * 2


@pytest.mark.parametrize("keeps", ["first", "last", "none"])
def test_a_newcomer_to_a_window_that_comes_back_is_not_taken_for_delivered(
    engine, filter_step, consumer, box, message, monkeypatch, keeps
):
    class Digest(Together):
        """Makes one of all, and may give it the id of one of them."""

        def release(self, opened):
            messages = opened.messages
            made = messages[{"last": -1}.get(keeps, 0)].replace(title=" ".join(m.title for m in messages))
            return [made.replace(id=message().id) if keeps == "none" else made]

    run = engine(filters=[filter_step(Digest)], consumers=[consumer(box)])
    run.send(message(key="k", title="a"), message(key="k", title="b"))
    run.work()

    def dies(turns):
        raise TemporaryError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(run.store, "turn", dies)
        with pytest.raises(TemporaryError):
            run.later(seconds=31)
    run.send(message(key="k", title="c"))
    run.work()
    run.later(minutes=2)
    assert " ".join(m.title for m in box.got).endswith("c")
    assert run.store.held_counts() == {}


@pytest.mark.parametrize("nonsense", [3, "text", "unreadable", None])
def test_nonsense_from_a_window_buries_its_messages(engine, filter_step, consumer, box, message, nonsense):
    class Odd(Together):
        """Lets nonsense out."""

        def release(self, opened):
            messages = opened.messages
            return None if nonsense is None else [messages[0].replace(title=None) if nonsense == "unreadable" else nonsense]

    run = engine(filters=[filter_step(Odd)], consumers=[consumer(box)])
    one = message(key="k")
    run.send(one)
    run.work()
    run.later(seconds=31)
    assert run.outcomes(one) == {"odd": "buried"}
    assert run.store.held_counts() == {}


def test_messages_whose_ids_are_no_uuids_do_not_stop_the_clock(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    run.send(message(id="mine-1", key="k"), message(id="mine-2", key="k"))
    run.work()
    run.later(seconds=31)
    assert {letter.message.id for letter in run.store.dead_letters()} == {"mine-1", "mine-2"}


def test_a_window_that_cannot_let_go_now_tries_again(engine, filter_step, consumer, box, message):
    class Away(Together):
        """Needs something that is away at the first call."""

        calls = 0

        def release(self, opened):
            messages = opened.messages
            Away.calls += 1
            if Away.calls == 1:
                raise TemporaryError("away", retry_after=1)
            return messages

    run = engine(filters=[filter_step(Away)], consumers=[consumer(box)])
    one = message(key="k")
    run.send(one)
    run.work()
    run.later(seconds=31)
    assert box.got == []
    run.later(seconds=2)
    run.later(seconds=31)
    assert box.got == [one]
    assert run.store.held_counts() == {}


def test_what_cannot_be_published_hinders_nothing_else(engine, filter_step, consumer, box, message, monkeypatch):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    run.send(message(key="a", title="small"), message(key="z", title="huge"))
    run.work()
    publish = run.queue.publish

    def refuses_huge(batches):
        if any(b"huge" in encode(batch) for batch in batches):
            raise TemporaryError("too large")
        publish(batches)

    monkeypatch.setattr(run.queue, "publish", refuses_huge)
    for _ in range(3):  # together, and then each alone
        with pytest.raises(TemporaryError):
            run.later(seconds=31)
    run.work()
    assert [m.title for m in box.got] == ["small"]
    assert run.store.held_counts() == {("toy", "together", Why.WINDOW): 1}


def test_a_clock_stops_while_its_lease_surely_holds(engine, filter_step, consumer, box, message, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 1)
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    run.send(message(key="a"), message(key="b"))
    run.work()
    run.queue.before = lambda: run.moment.__setitem__(0, run.moment[0] + timedelta(seconds=45))
    run.moment[0] += timedelta(seconds=31)
    run.clock.tick()
    assert run.store.held_counts() == {("toy", "together", Why.WINDOW): 1}
    run.queue.before = lambda: None
    run.clock.tick()
    run.work()
    assert len(box.got) == 2


def test_two_clocks_of_the_same_name_are_two_owners(engine, consumer, box, message):
    """As two containers of one host name would be: the one lets go of a message that the other has claimed again."""
    run = engine(consumers=[consumer(box)])
    second = Clock(run.runner, owner="test", retention=timedelta(days=7))
    assert run.clock._owner != second._owner


def test_held_messages_of_a_step_that_is_gone_are_buried(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Together, label="old")], consumers=[consumer(box)])
    run.send(message(key="k"))
    run.work()
    changed = engine(consumers=[consumer(box)])
    changed.later(seconds=31)
    (letter,) = run.store.dead_letters()
    assert letter.error == "pipeline 'toy' has no filter 'old' that waits any more"


def test_the_broker_away_gives_held_messages_back_for_the_next_tick(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    run.send(message(key="k", title="a"))
    run.work()
    run.queue.away = True
    with pytest.raises(TemporaryError):
        run.later(seconds=31)
    run.queue.away = False
    run.later(seconds=1)
    assert [m.title for m in box.got] == ["a"]


def test_two_clocks_bring_nothing_back_twice(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    second = Clock(run.runner, owner="other", retention=timedelta(days=7))
    run.send(*(message(key=str(n)) for n in range(50)))
    run.work()
    run.moment[0] += timedelta(seconds=31)
    threads = [threading.Thread(target=clock.tick) for clock in (run.clock, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.work()
    assert len(box.got) == 50


def test_a_poll_goes_on_from_its_cursor_and_each_time_is_polled_once(engine, producer, consumer, box, message):
    class Numbers(PollingProducer[NoOptions]):
        """Has three more numbers at each poll."""

        def poll(self, cursor):
            start = int(cursor or 0)
            for number in range(start, start + 3):
                yield message(title=str(number)), str(number + 1)

    run = engine(producers=[producer(Numbers, schedule=Every())], consumers=[consumer(box)])
    other = Clock(run.runner, owner="other", retention=timedelta(days=7))
    run.later(seconds=30)
    assert box.got == []
    for _ in range(2):
        run.moment[0] += timedelta(minutes=1)
        run.clock.tick()
        other.tick()
        finish(run.clock)
        finish(other)
        run.clock.tick()
    run.work()
    assert [m.title for m in box.got] == ["0", "1", "2", "3", "4", "5"]
    assert run.store.cursor("toy", "numbers") == "6"


def test_a_poll_goes_on_when_the_machines_clock_was_wrong_and_is_put_right(engine, producer, consumer, box, message):
    class One(PollingProducer[NoOptions]):
        """Has a message at each poll."""

        def poll(self, cursor):
            yield message(), "1"

    run = engine(producers=[producer(One, schedule=Every())], consumers=[consumer(box)])
    restarted = Clock(run.runner, owner="restarted", retention=timedelta(days=7))

    def polled(clock):
        run.moment[0] += timedelta(minutes=1)
        clock.tick()
        finish(clock)
        run.work()
        return len(box.got)

    run.moment[0] += timedelta(days=365)
    assert polled(run.clock) == 1
    run.moment[0] -= timedelta(days=365)
    assert polled(run.clock) == 2
    assert polled(restarted) == 3


def test_what_a_poll_gave_before_it_failed_is_accepted_and_it_is_asked_again_from_there(engine, producer, consumer, box, message):
    class Shaky(PollingProducer[NoOptions]):
        """Fails at the first call."""

        calls = 0

        def poll(self, cursor):
            Shaky.calls += 1
            yield message(title=f"{Shaky.calls} from {cursor}"), f"{Shaky.calls}"
            if Shaky.calls == 1:
                raise TemporaryError("connection reset")

    run = engine(producers=[producer(Shaky, schedule=Every())], consumers=[consumer(box)])
    for _ in range(2):
        run.moment[0] += timedelta(minutes=1)
        run.clock.tick()
        finish(run.clock)
    run.work()
    assert [m.title for m in box.got] == ["1 from None", "2 from 1"]


@pytest.mark.parametrize(("asked", "waits"), [(300.0, 5), (1e9, 60), (float("nan"), 1), (None, 1)])
def test_a_producer_is_left_alone_for_as_long_as_the_other_side_asked(engine, producer, consumer, box, message, asked, waits):
    class Limited(PollingProducer[NoOptions]):
        """Is told to wait at the first call."""

        calls: ClassVar = []

        def poll(self, cursor):
            self.calls.append(run.moment[0])
            if len(self.calls) == 1:
                raise TemporaryError("too many requests", retry_after=asked)
            yield message(), "1"

    run = engine(producers=[producer(Limited, schedule=Every())], consumers=[consumer(box)])
    for _ in range(waits + 1):
        run.moment[0] += timedelta(minutes=1)
        run.clock.tick()
        finish(run.clock)
    first, second = Limited.calls
    assert second - first == timedelta(minutes=waits)


def test_what_a_poll_cannot_read_is_buried_once_and_the_rest_goes_on(engine, producer, consumer, box, message):
    class Torn(PollingProducer[NoOptions]):
        """Has a torn line among its messages, and forgets its cursor."""

        def poll(self, cursor):
            yield message(title="a"), "1"
            yield Unreadable(b'{"title": ', "the body is not JSON"), "2"
            yield message(title="b"), "3"

    run = engine(producers=[producer(Torn, schedule=Every())], consumers=[consumer(box)])
    for _ in range(2):
        run.moment[0] += timedelta(minutes=1)
        run.clock.tick()
        finish(run.clock)
    run.work()
    assert [m.title for m in box.got] == ["a", "b", "a", "b"]
    (letter,) = run.store.dead_letters()
    assert (letter.message.data, letter.error) == ('{"title": ', "torn cannot read this: the body is not JSON")


def test_a_poll_stays_its_clocks_however_long_it_takes(engine, producer, consumer, box, message, monkeypatch):
    monkeypatch.setattr(polls, "RENEW_EVERY", 0.01)
    renewed, go_on = threading.Event(), threading.Event()

    class Slow(PollingProducer[NoOptions]):
        """Answers when it is let."""

        calls = 0

        def poll(self, cursor):
            Slow.calls += 1
            assert go_on.wait(20)
            yield message(title="late"), "end"

    run = engine(producers=[producer(Slow, schedule=Every())], consumers=[consumer(box)])
    other = Clock(run.runner, owner="other", retention=timedelta(days=7))
    renew = run.store.renew_occurrence

    def count(*args, **named):
        assert renew(*args, **named)
        renewed.set()

    monkeypatch.setattr(run.store, "renew_occurrence", count)
    run.moment[0] += timedelta(minutes=1)
    run.clock.tick()
    for _ in range(3):  # each longer than the lease
        run.moment[0] += timedelta(minutes=1)
        renewed.clear()
        assert renewed.wait(20)
        renewed.clear()
        assert renewed.wait(20)
        other.tick()
    go_on.set()
    finish(run.clock)
    finish(other)
    assert Slow.calls == 1


def test_a_producer_or_a_filter_that_exits_does_not_take_the_clock_along(
    engine, producer, filter_step, consumer, box, message, monkeypatch
):
    class Quits(PollingProducer[NoOptions]):
        """Ends the process, as it thinks."""

        def poll(self, cursor):
            raise SystemExit(3)

    def quits(self, opened):
        raise SystemExit(4)

    monkeypatch.setattr(Together, "release", quits)
    run = engine(producers=[producer(Quits, schedule=Every())], filters=[filter_step(Together)], consumers=[consumer(box)])
    run.send(message(key="k"))
    run.work()
    run.later(minutes=1)
    finish(run.clock)
    (letter,) = run.store.dead_letters()
    assert letter.error == "the filter raised SystemExit: 4"


def test_a_cursor_alone_moves_on_without_a_message(engine, producer, consumer, box, message):
    class Watch(PollingProducer[NoOptions]):
        """Only looks at the first poll."""

        def poll(self, cursor):
            if cursor:
                yield message(title=f"since {cursor}"), f"{cursor}!"
            yield None, f"{cursor or 'now'}."

    run = engine(producers=[producer(Watch)], consumers=[consumer(box)])
    pipeline = run.runner.pipelines["toy"]
    assert run.runner.poll(pipeline, "watch") == 0
    assert (run.store.cursor("toy", "watch"), run.queue.batches) == ("now.", [])
    assert run.runner.poll(pipeline, "watch") == 1
    run.work()
    assert ([m.title for m in box.got], run.store.cursor("toy", "watch")) == (["since now."], "now..")


def test_polling_on_demand(engine, producer, consumer, box, message):
    class Many(PollingProducer[NoOptions]):
        """Has more than one batch."""

        def poll(self, cursor):
            for number in range(1200):
                yield message(title=str(number)), str(number)

    run = engine(producers=[producer(Many)], consumers=[consumer(box)])
    pipeline = run.runner.pipelines["toy"]
    assert run.runner.poll(pipeline, "many") == 1200
    assert [len(batch.messages) for batch in run.queue.batches] == [100] * 12
    with pytest.raises(PermanentError, match="no polling producer 'box'"):
        run.runner.poll(pipeline, "box")


def test_the_spool_is_published_when_the_broker_is_back(engine, consumer, box, message, hand_in):
    run = engine(consumers=[consumer(box)])
    publisher = Publisher(run.queue, run.store, now=lambda: run.moment[0])
    pipeline = run.runner.pipelines["toy"]
    run.queue.away = True
    sent = [message(title=str(number)) for number in range(5)]
    for one in sent:
        hand_in(publisher, pipeline, "http", [one]).result(timeout=5)
    publisher.close()
    assert sum(run.store.held_counts().values()) == 5
    run.queue.away = False
    run.moment[0] += timedelta(seconds=1)
    run.clock.tick()
    published = [m.title for batch in run.queue.batches for m in batch.messages]
    run.work()
    assert published == ["0", "1", "2", "3", "4"], "in order as far as the queue; the consumer is given several at once"
    assert sorted(m.title for m in box.got) == published
    assert run.store.held_counts() == {}


def test_old_records_are_forgotten(engine, consumer, box, message):
    run = engine(consumers=[consumer(box)])
    one = message()
    run.send(one)
    run.work()
    run.later(days=6)
    assert run.outcomes(one) == {"box": "delivered"}
    run.later(days=2)
    assert run.outcomes(one) == {}


def test_a_running_clock_ticks_listens_and_stops(engine, producer, consumer, box, message, monkeypatch):
    heard = threading.Event()

    class Radio(ListeningProducer[NoOptions]):
        """Hears one message, and fails at its first call."""

        calls = 0

        def listen(self, publish, stopping):
            Radio.calls += 1
            if Radio.calls == 1:
                raise OSError("no reception")
            publish([message(title="heard")])
            heard.set()
            while not stopping():
                threading.Event().wait(0.01)

    run = engine(producers=[producer(Radio)], consumers=[consumer(box)])
    monkeypatch.setattr(listeners, "PAUSE", 0.01)
    stopping = threading.Event()
    thread = threading.Thread(target=run.clock.run, args=(stopping,))
    thread.start()
    assert heard.wait(10)
    stopping.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    run.work()
    assert [m.title for m in box.got] == ["heard"]


class Both(PollingProducer[NoOptions], ListeningProducer[NoOptions]):
    """Can be polled and can listen; tells which it did, and one of all clocks may."""

    alone = True
    did: ClassVar[list[str]] = []

    def poll(self, cursor):
        self.did.append("polled")
        return ()

    def listen(self, publish, stopping):
        self.did.append("listened")
        while not stopping():
            threading.Event().wait(0.01)
        self.did.append("stopped")


@contextmanager
def running(clock):
    stopping = threading.Event()
    thread = threading.Thread(target=clock.run, args=(stopping,))
    thread.start()
    yield
    stopping.set()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_producer_of_both_kinds_is_polled_where_it_has_a_schedule(engine, producer, consumer, box):
    Both.did = []
    run = engine(producers=[producer(Both, schedule=Every())], consumers=[consumer(box)])
    run.clock.tick()
    run.moment[0] += timedelta(minutes=1)
    with running(run.clock):
        until(lambda: Both.did, "it was asked")
    assert set(Both.did) == {"polled"}


def test_a_producer_that_listens_is_not_polled_as_well(engine, producer, consumer, box):
    Both.did = []
    run = engine(producers=[producer(Both)], consumers=[consumer(box)])
    (step,) = next(iter(run.runner.pipelines)).spec.producers
    assert (step.listens, step.polls) == (True, False)
    with pytest.raises(PermanentError, match="has no polling producer 'both'"):
        run.runner.poll(next(iter(run.runner.pipelines)), "both")
    assert Both.did == []


def test_one_of_all_clocks_listens_where_the_other_side_would_tell_each(engine, producer, consumer, box, monkeypatch):
    Both.did = []
    monkeypatch.setattr(listeners, "PAUSE", 0.01)
    run = engine(producers=[producer(Both)], consumers=[consumer(box)])
    other = Clock(run.runner, owner="other", retention=timedelta(days=7))
    claimed = []
    claim = run.store.claim_occurrence
    monkeypatch.setattr(
        run.store, "claim_occurrence", lambda *args, **named: claimed.append(claim(*args, **named)) or claimed[-1]
    )
    with running(run.clock):
        until(lambda: Both.did == ["listened"], "the first one listens")
        with running(other):
            until(lambda: claimed.count(False) >= 3, "the other one tries to")
        assert Both.did == ["listened"]
        run.moment[0] += timedelta(seconds=1)
    with running(other):
        until(lambda: len(Both.did) == 3, "the other one has its turn")
    assert Both.did == ["listened", "stopped", "listened", "stopped"]


def test_a_clock_that_lost_its_turn_stops_listening(engine, producer, consumer, box, monkeypatch):
    Both.did = []
    monkeypatch.setattr(polls, "RENEW_EVERY", 0.01)
    monkeypatch.setattr(listeners, "PAUSE", 0.01)
    run = engine(producers=[producer(Both)], consumers=[consumer(box)])
    with running(run.clock):
        until(lambda: Both.did == ["listened"], "it listens")
        run.moment[0] += timedelta(minutes=1)
        monkeypatch.setattr(run.store, "renew_occurrence", lambda *_, **__: False)
        until(lambda: "stopped" in Both.did, "it has stopped")


@pytest.mark.parametrize(("raw", "data"), [(b'{"title": ', '{"title": '), (b"\xff\0", {"base64": "/wA="})])
def test_what_a_listening_producer_cannot_read_is_buried_as_it_came_and_once(
    engine, producer, consumer, box, raw, data, monkeypatch
):
    stopping = threading.Event()

    class Radio(ListeningProducer[NoOptions]):
        """Hears noise, twice the same."""

        def listen(self, publish, stopping_):
            for _ in range(2):
                publish.bury(raw, "it is cut off", message_id="019aa5c1-0000-7000-8000-000000000001")
            stopping.set()

    run = engine(producers=[producer(Radio)], consumers=[consumer(box)])
    thread = threading.Thread(target=run.clock.run, args=(stopping,))
    thread.start()
    thread.join(timeout=10)
    assert not thread.is_alive()
    (letter,) = run.store.dead_letters()
    assert (letter.error, letter.pipeline, letter.step) == ("radio cannot read this: it is cut off", "toy", "")
    assert (letter.message.data, letter.message.type, letter.message.source) == (data, "unreadable", "radio")

    where = place(run.runner.pipelines, letter, None, run.moment[0])
    assert where == "it could not be read as a message: edit it into one, with another `type`, or send in what lies in its `data`"
    edited = replace(letter, message=letter.message.replace(type="alert"))
    assert place(run.runner.pipelines, edited, None, run.moment[0]).step == ""


def test_a_clock_outlives_a_store_that_is_away(engine, consumer, box, monkeypatch):
    run = engine(consumers=[consumer(box)])
    ticks = []
    stopping = threading.Event()

    def tick():
        ticks.append(1)
        if len(ticks) == 3:
            stopping.set()
        raise TemporaryError("the store is away")

    monkeypatch.setattr(run.clock, "tick", tick)
    run.clock.run(stopping)
    assert len(ticks) == 3


def test_a_clock_outlives_a_bug(engine, consumer, box, monkeypatch):
    run = engine(consumers=[consumer(box)])
    ticks = []
    stopping = threading.Event()

    def tick():
        ticks.append(1)
        if len(ticks) == 2:
            stopping.set()
        raise ZeroDivisionError

    monkeypatch.setattr(run.clock, "tick", tick)
    run.clock.run(stopping)
    assert len(ticks) == 2


def test_old_records_that_are_many_are_forgotten_tick_by_tick(engine, consumer, box, message, monkeypatch):
    monkeypatch.setattr(module, "PURGE_AT_ONCE", 2)
    run = engine(consumers=[consumer(box)])
    sent = [message() for _ in range(5)]
    run.send(*sent)
    run.work()
    run.moment[0] += timedelta(days=8)
    for _ in range(3):
        run.clock.tick()
    assert [run.outcomes(one) for one in sent] == [{}] * 5


def finish(clock):
    """Wait for the polls that a clock has started."""
    clock._polls.wait(10)


def test_a_window_filter_that_fails_for_ever_is_given_up(engine, filter_step, consumer, box, message):
    class Never(WindowFilter[NoOptions]):
        """Lets messages wait a minute, and then cannot let them out."""

        def window(self, one, now, memory):
            return Window("k", now + timedelta(minutes=1))

        def release(self, opened):
            raise TemporaryError("the calendar is away")

    run = engine(filters=[filter_step(Never)], consumers=[consumer(box)])
    one = message()
    run.send(one)
    run.work()
    for _ in range(7):
        run.later(hours=1)
    (letter,) = run.store.dead_letters()
    assert letter.message == one
    assert letter.error.endswith("attempts: the calendar is away")
    assert letter.attempts > 3
    assert run.store.held_counts() == {}


def test_after_the_store_was_away_nobody_is_taken_for_dead_for_a_while(engine, consumer, box, monkeypatch):
    run = engine(consumers=[consumer(box)])
    asked = []
    claim = run.store.lanes.claim
    monkeypatch.setattr(run.store.lanes, "claim", lambda *a, **named: asked.append(named["take_over"]) or claim(*a, **named))
    for seconds in (0, 11):
        run.later(seconds=seconds)
    with monkeypatch.context() as patch:
        patch.setattr(run.store, "claim_due", lambda *_, **__: (_ for _ in ()).throw(TemporaryError("away")))
        with pytest.raises(TemporaryError):
            run.clock.tick()
    for seconds in (0, 9, 1):
        run.later(seconds=seconds)
    assert asked == [False, True, False, False, True]
