"""What comes again, as its worker or its broker died: nothing that is on record as done is done again."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from pipeline import (
    Consumer,
    Filter,
    Keep,
    Message,
    NoOptions,
    RememberingFilter,
    TemporaryError,
    Window,
    WindowFilter,
    derived_id,
)
from pipeline.store import Outcome


class Together(WindowFilter[NoOptions]):
    """Lets messages of a key wait half a minute; the key says as what they leave."""

    calls = 0

    def window(self, message, now, memory):
        return Window(message.key, now + timedelta(seconds=30))

    def release(self, opened):
        key, messages = opened.key, opened.messages
        if key == "late":
            type(self).calls += 1
            if type(self).calls == 1:
                raise TemporaryError("away", retry_after=1)
        if key == "nothing":
            return []
        return messages[:1] if key == "first" else [messages[0].replace(title="+".join(m.title for m in messages))]


@pytest.mark.parametrize(
    ("key", "outcomes", "arrives"),
    [("digest", ["replaced", "replaced"], ["a+b"]), ("first", ["passed", "replaced"], ["a"]), ("nothing", ["dropped"] * 2, [])],
)
def test_what_left_its_window_is_not_put_into_another_one(engine, filter_step, consumer, box, message, key, outcomes, arrives):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    sent = [message(key=key, title=title) for title in "ab"]
    run.send(*sent)
    (batch,) = run.queue.take()
    run.runner.run(batch)
    run.later(seconds=31)
    run.runner.run(batch)
    assert run.store.held_counts() == {}
    assert [run.outcomes(one)["together"] for one in sent] == outcomes
    run.later(minutes=2)
    assert [m.title for m in box.got] == arrives


def test_what_still_waits_in_its_window_waits_on_and_leaves_once(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Together)], consumers=[consumer(box)])
    run.send(message(key="k", title="a"), message(key="k", title="b"))
    (batch,) = run.queue.take()
    run.runner.run(batch)
    run.moment[0] += timedelta(seconds=20)
    run.runner.run(batch)
    run.later(seconds=11)
    run.later(minutes=2)
    assert [m.title for m in box.got] == ["a+b"]


def test_a_window_that_let_go_at_its_second_attempt_is_left_for_good(engine, filter_step, consumer, box, message):
    together = type("Together", (Together,), {"calls": 0})
    run = engine(filters=[filter_step(together)], consumers=[consumer(box)])
    one = message(key="late", title="a")
    run.send(one)
    (batch,) = run.queue.take()
    run.runner.run(batch)
    run.later(seconds=31)
    run.later(seconds=2)
    run.later(seconds=31)
    assert run.outcomes(one)["together"] in ("passed", "replaced")
    run.runner.run(batch)
    assert run.store.held_counts() == {}
    assert len(box.got) == 1


def test_a_batch_that_is_filtered_twice_is_delivered_once(engine, filter_step, consumer, box, message):
    class Once(RememberingFilter[NoOptions]):
        """Passes the first of a key."""

        def filter(self, one, memory):
            if memory.first(one.key, timedelta(minutes=10)):
                yield one

    class Twice(Filter[NoOptions]):
        """Splits each message into two."""

        def filter(self, one):
            return [one.replace(title=one.title + "1"), one.replace(title=one.title + "2")]

    run = engine(filters=[filter_step(Once), filter_step(Twice)], consumers=[consumer(box)])
    run.send(message(key="a", title="a"), message(key="a", title="b"), message(key="c", title="c"))
    (batch,) = run.queue.take()
    run.runner.run(batch)
    run.runner.run(batch)
    first, second = run.queue.take()
    assert [m.id for m in first.messages] == [m.id for m in second.messages]
    run.queue.publish([first, second])
    run.work()
    assert sorted(m.title for m in box.got) == ["a1", "a2", "c1", "c2"]


@pytest.mark.parametrize("fails_last", [True, False])
def test_what_one_of_two_workers_delivered_the_other_ones_retry_does_not_deliver(engine, consumer, message, fails_last):
    """A worker that its broker took for dead goes on beside its successor, and the two fare differently."""
    inside, settled = threading.Event(), threading.Event()

    class Box(Consumer[NoOptions]):
        """Takes from one worker, and fails for the other; the one that came first ends last."""

        got: list = []
        calls = 0

        def consume(self, one):
            Box.calls += 1
            call = Box.calls
            if call == 1:
                inside.set()
                assert settled.wait(30)
            if call == (1 if fails_last else 2):
                raise TemporaryError("cut off", retry_after=5)
            Box.got.append(one)

    run = engine(consumers=[consumer(Box)])
    one = message()
    run.send(one)
    (batch,) = run.queue.take()
    elsewhere = engine(consumers=[consumer(Box)])  # a process of its own would not know either what is under way here
    worker = threading.Thread(target=elsewhere.runner.run, args=(batch,))
    worker.start()
    assert inside.wait(30)
    run.runner.run(batch)
    settled.set()
    worker.join()
    run.later(seconds=10)
    run.later(minutes=10)
    assert Box.got == [one]
    assert run.outcomes(one) == {"box": "delivered"}
    assert run.store.held_counts() == {}
    assert run.store.counts()[("toy", "box", Outcome.DELIVERED)] == 1


def test_a_retry_that_two_clocks_published_is_delivered_once(engine, consumer, message):
    class Box(Consumer[NoOptions]):
        """Fails once."""

        got: list = []
        answers = [TemporaryError("busy", retry_after=5)]

        def consume(self, one):
            if Box.answers:
                raise Box.answers.pop()
            Box.got.append(one)

    run = engine(consumers=[consumer(Box)])
    run.send(message())
    run.work()
    run.moment[0] += timedelta(seconds=10)
    run.clock.tick()
    batches = run.queue.take()
    for batch in [*batches, *batches]:
        run.runner.run(batch)
    assert len(Box.got) == 1


def test_a_delivery_that_others_overtook_with_failures_is_not_made_again(engine, consumer, message):
    """One worker is still calling with the first attempt when another one, which has the same batch, fails with two."""

    class Slow(Consumer[NoOptions]):
        """Has the other worker work while it takes the first call."""

        meanwhile: list = []
        calls = 0

        def consume(self, _):
            Slow.calls += 1
            if Slow.calls == 1:
                Slow.meanwhile.pop()()
            elif Slow.calls <= 3:
                raise TemporaryError("not now", retry_after=1)

    run, other = (engine(consumers=[consumer(Slow)]) for _ in range(2))
    one = message()
    run.send(one)
    (batch,) = run.queue.take()

    def two_failures():
        other.runner.run(batch)
        other.later(seconds=2)

    Slow.meanwhile.append(two_failures)
    run.runner.run(batch)
    assert Slow.calls == 3
    assert run.outcomes(one) == {"slow": "delivered"}
    other.later(seconds=10)
    assert Slow.calls == 3, "a duplicate without a death"
    assert run.store.held_counts() == {}


class Latest(WindowFilter[NoOptions]):
    """Lets what is sent again under one id wait anew where it has a new text, and keeps the last text for half a minute more."""

    def window(self, message, now, memory):
        return Window("k", now + timedelta(seconds=30), message.replace(id=derived_id(message.id, message.text)))

    def release(self, opened):
        if opened.messages:
            return [Keep([*(opened.kept or []), *(one.text for one in opened.messages)], opened.now + timedelta(minutes=10))]
        return [Message(source="kept", title=" ".join(opened.kept))]


def test_what_is_sent_again_with_something_new_waits_anew(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Latest, label="latest")], consumers=[consumer(box)])
    one = message(key="k", text="a")
    for text in ("a", "a", "b", "a", "b"):
        run.send(one.replace(text=text))
        run.work()
        run.later(minutes=1)
    run.later(minutes=10)
    assert [told.title for told in box.got] == ["a b"]
    assert run.outcomes(one) == {"latest": "replaced"}
    assert run.store.history(one.id)[0].became == (derived_id(one.id, "b"),)
