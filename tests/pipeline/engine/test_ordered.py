"""Ordered consumers: first deliveries of a key come in the order of acceptance, whatever is retried, repeated or killed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline import Consumer, Filter, NoOptions, PermanentError, TemporaryError
from pipeline.engine.batch import Batch
from pipeline.engine.publisher import Publisher
from pipeline.plugin import BatchConsumer, Window, WindowFilter
from pipeline.store import Why
from pipeline.store.rows import Worked

seen: list[tuple[str, str]] = []
"""What consumers got: key and title."""
failing: dict[str, Exception] = {}
"""By title: what the consumer or the filter raises."""


@pytest.fixture(autouse=True)
def _nothing_yet():
    seen.clear()
    failing.clear()


class Sink(Consumer[NoOptions]):
    def consume(self, message):
        if error := failing.get(message.title):
            raise error
        seen.append((message.key, message.title))


class Other(Consumer[NoOptions]):
    def consume(self, message):
        seen.append(("other", message.title))


class Many(BatchConsumer[NoOptions]):
    def consume_many(self, messages):
        assert len({message.key for message in messages}) == len(messages), "one of each key at a time"
        seen.extend((message.key, message.title) for message in messages if message.title not in failing)
        return {message.id: failing[message.title] for message in messages if message.title in failing}


class Shaky(Filter[NoOptions]):
    def filter(self, message):
        if error := failing.get(f"filter {message.title}"):
            raise error
        yield message


class Halves(Filter[NoOptions]):
    def filter(self, message):
        yield message.replace(title=f"{message.title}a")
        yield message.replace(title=f"{message.title}b")


class Later(WindowFilter[NoOptions]):
    def window(self, message, now, memory):
        return Window(message.key, now + timedelta(seconds=10))

    def release(self, opened):
        return opened.messages


def titles(key):
    return [title for its, title in seen if its == key]


def accept(run, message, *names, key="k"):
    made = [message(title=name, key=key) for name in names]
    run.runner.accept(run.runner.pipelines["toy"], "hook", made)
    return made


def test_messages_come_in_order_and_the_queue_has_only_the_first_of_each_key(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    accept(run, message, "1", "2")
    accept(run, message, "3")
    accept(run, message, "1", key="y")
    assert run.queue.batches == []
    assert run.store.held_counts() == {("toy", "", Why.ORDER): 4}
    run.later()
    assert titles("k") == ["1", "2", "3"]
    assert titles("y") == ["1"]
    assert run.store.held_counts() == {}
    assert run.queue.batches == []


def test_the_intake_lets_messages_stand_in_line_and_the_others_go_as_ever(engine, consumer, message, hand_in):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    publisher = Publisher(run.queue, run.store, now=lambda: run.moment[0])
    hand_in(publisher, run.runner.pipelines["toy"], "hook", [message(title="1", key="k")]).result(5)
    publisher.close()
    assert run.store.held_counts() == {("toy", "", Why.ORDER): 1}
    assert run.queue.calls == 0


def test_a_retry_holds_back_its_key_only(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    failing["1"] = TemporaryError("not now", retry_after=30)
    one, *_ = accept(run, message, "1", "2")
    accept(run, message, "5", key="y")
    run.later()
    assert seen == [("y", "5")]
    accept(run, message, "3")
    del failing["1"]
    run.later(seconds=29)
    assert titles("k") == []
    run.later(seconds=5)
    assert titles("k") == ["1", "2", "3"]
    (record,) = run.store.history(one.id)
    assert (record.attempt, record.outcome.value) == (2, "delivered")


def test_what_is_buried_lets_the_next_pass(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    failing["1"] = PermanentError("never")
    one, *_ = accept(run, message, "1", "2")
    run.later()
    assert titles("k") == ["2"]
    assert [letter.message.id for letter in run.store.dead_letter(one.id)] == [one.id]


def test_messages_without_a_key_are_one_lane(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    failing["1"] = TemporaryError("not now", retry_after=30)
    accept(run, message, "1", "2", key="")
    run.later()
    assert seen == []


def test_consumers_that_are_not_ordered_get_theirs_as_ever(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True), consumer(Other)])
    failing["1"] = TemporaryError("not now", retry_after=30)
    accept(run, message, "1", "2")
    run.later()
    assert titles("other") == ["1", "2"]
    assert titles("k") == []


def test_consumers_that_take_batches_get_one_message_of_each_key(engine, consumer, message):
    run = engine(consumers=[consumer(Many, ordered=True)])
    failing["2"] = TemporaryError("not now", retry_after=30)
    accept(run, message, "1", "2", "3")
    accept(run, message, "7", "8", key="y")
    run.later()
    assert (titles("k"), titles("y")) == (["1"], ["7", "8"])
    failing.clear()
    run.later(seconds=40)
    assert titles("k") == ["1", "2", "3"]


def test_a_filter_that_fails_holds_back_its_key_and_nothing_is_decided_twice(engine, consumer, filter_step, message):
    run = engine(filters=[filter_step(Halves), filter_step(Shaky)], consumers=[consumer(Sink, ordered=True)])
    failing["filter 1b"] = TemporaryError("not now", retry_after=30)
    accept(run, message, "1", "2")
    accept(run, message, "5", key="y")
    run.later()
    assert seen == [("y", "5a"), ("y", "5b")]
    failing.clear()
    run.later(seconds=40)
    assert titles("k") == ["1a", "1b", "2a", "2b"]


def test_a_filter_that_fails_for_too_long_buries_and_lets_the_next_pass(engine, consumer, filter_step, message):
    run = engine(filters=[filter_step(Halves), filter_step(Shaky)], consumers=[consumer(Sink, ordered=True)])
    failing["filter 1a"] = TemporaryError("not now", retry_after=3600)
    accept(run, message, "1", "2")
    for _ in range(9):
        run.later(hours=1.2)
    assert titles("k") == ["1b", "2a", "2b"]
    (letter,) = run.store.dead_letters()
    assert letter.message.title == "1a"


def test_a_filter_with_a_queue_of_its_own_is_another_line(engine, consumer, filter_step, message):
    run = engine(filters=[filter_step(Halves), filter_step(Shaky, queue="slow")], consumers=[consumer(Sink, ordered=True)])
    failing["filter 1a"] = TemporaryError("not now", retry_after=30)
    accept(run, message, "1", "2")
    run.later()
    assert seen == []
    assert run.store.held_counts() == {("toy", "halves", Why.ORDER): 4}
    failing.clear()
    run.later(seconds=40)
    assert titles("k") == ["1a", "1b", "2a", "2b"]


def test_what_leaves_a_window_stands_in_line_from_then_on(engine, consumer, filter_step, message):
    run = engine(filters=[filter_step(Later)], consumers=[consumer(Sink, ordered=True)])
    failing["1"] = TemporaryError("not now", retry_after=60)
    accept(run, message, "1")
    run.later()
    run.later(seconds=10)
    accept(run, message, "2")
    run.later()
    run.later(seconds=12)
    assert seen == []
    failing.clear()
    run.later(seconds=90)
    assert titles("k") == ["1", "2"]


def test_a_batch_from_before_stands_at_the_end(engine, consumer, message):
    """What was on the queue when `ordered` was set, and what is redriven."""
    run = engine(consumers=[consumer(Sink, ordered=True)])
    failing["1"] = TemporaryError("not now", retry_after=30)
    accept(run, message, "1", "2")
    run.later()
    old = message(title="0", key="k")
    run.runner.run(Batch(job="deliver", queue="out.sink", pipeline="toy", step="sink", messages=[old], attempt=3))
    run.work()
    assert seen == []
    failing.clear()
    run.later(seconds=40)
    assert titles("k") == ["1", "2", "0"]


def test_a_batch_that_comes_twice_or_late_does_nothing(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    accept(run, message, "1", "2")
    run.clock.tick()
    batches = run.queue.take()
    for batch in [*batches, *batches]:
        run.runner.run(batch)
    batches = run.queue.take()
    for batch in [*batches, *batches]:
        run.runner.run(batch)
    assert titles("k") == ["1", "2"]


def test_the_broker_away_means_that_they_stand_in_line(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    run.queue.away = True
    accept(run, message, "1")
    run.later()
    assert run.store.held_counts() == {("toy", "", Why.ORDER): 1}
    run.queue.away = False
    run.later()
    assert titles("k") == ["1"]


def test_what_kills_workers_is_found_and_buried_alone(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    accept(run, message, "1", "poison", "3")
    accept(run, message, "7", key="y")
    deaths = 0
    for _ in range(60):
        run.clock.tick()
        for batch in run.queue.take():
            if batch.job == "deliver" and any(m.title == "poison" for m in batch.messages) and not dying(run, batch):
                deaths += 1
            else:
                run.runner.run(batch)
    assert titles("k") == ["1", "3"]
    assert titles("y") == ["7"]
    assert deaths <= 4
    (letter,) = run.store.dead_letters()
    assert "its worker died 3 times" in letter.error


def dying(run, batch):
    """Begin with a batch and die over it, unless the poison is to be buried."""
    ids = [m.id for m in batch.messages]
    now = run.moment[0]
    rows = run.store.lanes.begin(
        ("toy", "sink"), ids, token=batch.claim, worker="dead", now=now, until=now + timedelta(seconds=20)
    )
    if len(rows) == 1 and rows[0].deaths >= 3:
        run.store.settle(worked=Worked(worker="dead", lanes=[rows[0].lane], now=now))
        return True
    run.runner.lost(batch)
    return False


def test_a_step_that_is_gone_buries_what_stood_in_line(engine, consumer, filter_step, message):
    run = engine(filters=[filter_step(Shaky)], consumers=[consumer(Sink, ordered=True)])
    failing["1"] = TemporaryError("not now", retry_after=30)
    accept(run, message, "1", "2")
    run.later()
    without = engine(consumers=[consumer(Other)])
    without.later(seconds=40)
    assert sorted(letter.message.title for letter in run.store.dead_letters()) == ["1", "2"]
    assert run.store.held_counts() == {}


class Killed(BaseException):
    """The process is gone."""


def test_a_kill_at_any_point_neither_loses_nor_overtakes(engine, consumer, filter_step, message, monkeypatch):
    """Kills the process at the first, second, third … call of store, queue or consumer, until a run ends without one."""
    point = 0
    while True:
        point += 1
        seen.clear()
        calls = [0]

        def counted(call, *, after, calls=calls, point=point):
            def wrapped(*args, **kwargs):
                calls[0] += 1
                if calls[0] == point and not after:
                    raise Killed
                result = call(*args, **kwargs)
                if calls[0] == point and after:
                    raise Killed
                return result

            return wrapped

        run = engine(filters=[filter_step(Halves)], consumers=[consumer(Sink, ordered=True), consumer(Other)])
        accept(run, message, "1", "2", key=f"k{point}")
        accept(run, message, "3", key=f"k{point}")
        with monkeypatch.context() as patch:
            for after in (False, True):
                for target, name in [
                    (run.store, "settle"),
                    (run.store, "records"),
                    (run.queue, "publish"),
                    (run.store.lanes, "claim"),
                    (run.store.lanes, "begin"),
                    (run.store.lanes, "sent"),
                ]:
                    patch.setattr(target, name, counted(getattr(target, name), after=after))
            killed = until_killed(run)
        for _ in range(8):
            run.moment[0] += timedelta(seconds=12)
            run.queue.batches += killed
            killed = []
            run.later()
        expected = ["1a", "1b", "2a", "2b", "3a", "3b"]
        assert list(dict.fromkeys(titles(f"k{point}"))) == expected, f"killed at call {point}: {seen}"
        assert set(titles("other")) == set(expected), f"killed at call {point}"
        assert run.store.held_counts() == {}
        if calls[0] < point:
            break
    assert point > 20


def until_killed(run):
    """Work until the process is killed; give the batch that the broker will bring again."""
    batch = None
    try:
        while run.clock.tick() or run.queue.batches:
            batch = run.queue.batches.pop(0) if run.queue.batches else None
            if batch:
                run.runner.run(batch)
    except Killed:
        return [batch] if batch else []
    return []


def test_an_outage_is_found_over_by_one_key_and_then_all_go_on(engine, consumer, message):
    run = engine(consumers=[consumer(Sink, ordered=True)])
    for n in range(8):
        failing[f"{n}"] = TemporaryError("down")
        accept(run, message, f"{n}", f"{n}+", key=f"k{n}")
    for _ in range(60):
        run.later(seconds=1)
    (circuit,) = run.store.circuits()
    assert circuit.state.value == "open"
    failing.clear()
    for _ in range(100):
        run.later(seconds=10)
        if not run.store.held_counts():
            break
    assert sorted(seen) == sorted((f"k{n}", f"{n}{plus}") for n in range(8) for plus in ("", "+"))
    assert all(titles(f"k{n}") == [f"{n}", f"{n}+"] for n in range(8))
