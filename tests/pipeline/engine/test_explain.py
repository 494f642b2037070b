"""The story of a message, through the real engine: each situation beside the exact text that a person sees."""

from __future__ import annotations

import dataclasses
import io
from datetime import UTC, timedelta
from uuid import UUID

import pytest
from rich.console import Console

from pipeline import (
    By,
    Condition,
    Config,
    Consumer,
    Dropped,
    Filter,
    Message,
    NoOptions,
    PermanentError,
    TemporaryError,
    Window,
    WindowFilter,
)
from pipeline.cli.explain import print_explanation
from pipeline.engine import retry
from pipeline.engine.explain import MOST_PARTS, NOT_TRIED, accepted_at, explain, ids_like
from pipeline.engine.explanation import span
from pipeline.engine.redrive import Redrive
from pipeline.engine.retry import NotTriedError
from pipeline.message import derived_id
from pipeline.spec.model import Retry
from pipeline.store import DeadLetter, Held, Outcome, Record, Why
from pipeline.store.rows import Lined
from pipeline.store.selection import Selection


def id_at(moment, number=0):
    """A UUIDv7 of a moment."""
    return str(UUID(int=int(moment.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | number))


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch):
    monkeypatch.setattr(retry, "between", lambda _low, high: high)


@pytest.fixture
def send(message):
    """Sends messages whose ids are of the engine's moment."""

    def make(run, *titles, **fields):
        made = [message(id=id_at(run.moment[0], number), title=title, **fields) for number, title in enumerate(titles)]
        run.send(*made)
        return made[0] if len(made) == 1 else made

    return make


@pytest.fixture
def told():
    """Gives what a person reads of a message, line by line."""

    def tell(run, message, width=80):
        specs = [pipeline.spec for pipeline in run.runner.pipelines]
        found = explain(run.store, specs, message.id, run.moment[0])
        assert found is not None
        out = io.StringIO()
        print_explanation(found, Console(file=out, width=width, color_system=None), run.moment[0], UTC)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    return tell


class Box(Consumer[NoOptions]):
    """Takes what it gets; raises what it is told to."""

    answers: list

    def consume(self, message):
        if type(self).answers and (answer := type(self).answers.pop(0)) is not None:
            raise answer


@pytest.fixture
def boxes(consumer):
    """Makes consumers by label, each with what it raises one after another."""

    def make(**answers):
        return [
            consumer(type("Box", (Box,), {"answers": list(given), "__doc__": "A box."}), label=label, concurrency=1)
            for label, given in answers.items()
        ]

    return make


class SieveConfig(Config):
    """Options with a condition."""

    condition: Condition


class Sieve(Filter[SieveConfig]):
    """Drops what does not fulfil the condition."""

    def filter(self, message):
        holds = self.config.condition.matches(message)
        yield message if holds else Dropped(f"{self.config.condition.text} does not hold")


class Twice(Filter[NoOptions]):
    """Splits each message into two."""

    def filter(self, message):
        return [message.replace(title="first"), message.replace(title="second")]


class Digest(WindowFilter[NoOptions]):
    """Makes one of the messages of half a minute."""

    def window(self, message, now, memory):
        return Window(message.key, now + timedelta(seconds=30))

    def release(self, opened):
        messages = opened.messages
        return [Message(source="digest", title=" + ".join(m.title for m in messages))] if len(messages) > 1 else messages


class Group(Digest):
    """Lets another message wait in the place of each."""

    def window(self, message, now, memory):
        other = message.replace(id=derived_id(message.id, "waits"))
        return Window(message.key, now + timedelta(seconds=30), other)


def is_told(text, *lines):
    assert text.splitlines() == list(lines)


ID = "019ca945-0a00-7000-8000-000000000000"
ACCEPTED = "accepted   into toy on 2026-03-01, times of UTC+00:00"


def test_delivered_to_all(engine, boxes, send, told):
    run = engine(consumers=boxes(oncall=[], archive=[]))
    one = send(run, "disk full")
    run.moment[0] += timedelta(seconds=1)
    run.work()
    is_told(
        told(run, one),
        ID,
        "delivered to archive and oncall",
        "",
        f"12:00:00  intake   {ACCEPTED}",
        "12:00:01  archive  delivered  at the first attempt",
        "12:00:01  oncall   delivered  at the first attempt",
    )


def test_delivered_after_failures_and_on_another_day(engine, boxes, send, told):
    (email,) = boxes(email=[TemporaryError("busy", retry_after=3600 * 13)])
    run = engine(consumers=[dataclasses.replace(email, retry=Retry(timedelta(days=3)))])
    one = send(run, "disk full")
    run.work()
    run.later(hours=15)
    is_told(
        told(run, one, width=120),
        ID,
        "delivered to email",
        "",
        f"12:00:00        intake  {ACCEPTED}",
        "03-02 03:00:00  email   delivered  after 2 attempts, first failure at 12:00:00",
    )


def test_held_after_three_attempts(engine, boxes, send, told):
    run = engine(consumers=boxes(oncall=[], email=[TemporaryError("503 Service Unavailable", retry_after=100)] * 3))
    one = send(run, "disk full")
    run.work()
    run.later(seconds=111)
    run.later(seconds=111)
    is_told(
        told(run, one),
        f"{ID} disk full",
        "delivered to oncall; email: held, next try in 1 min 50 s",
        "",
        "12:00:00  intake  accepted   from test into toy on 2026-03-01, times of",
        "                             UTC+00:00",
        "12:00:00  oncall  delivered  at the first attempt",
        "12:03:42  email   held       tried 3 times, first failure at 12:00:00; next at",
        "                             12:05:32 (in 1 min 50 s)",
        "                             last error: 503 Service Unavailable",
    )
    assert "next at 12:05:32 (in 1 min 50 s)\n" in told(run, one, width=120)


def test_a_message_that_was_not_tried_waits(engine, boxes, send, told):
    until = timedelta(seconds=20)
    run = engine(consumers=boxes(email=[]))
    one = send(run, "disk full")
    run.queue.take()
    now = run.moment[0]
    run.store.settle(
        records=[
            Record(
                message_id=one.id,
                pipeline="toy",
                step="email",
                outcome=Outcome.HELD,
                at=now,
                attempt=0,
                reason=f"{NotTriedError('its circuit is open')}",
            )
        ],
        held=[Held(message=one, pipeline="toy", step="email", why=Why.RETRY, due=now + until)],
    )
    assert str(NotTriedError("x")).startswith(NOT_TRIED)
    is_told(
        told(run, one, width=120),
        f"{ID} disk full",
        "email: waiting, due in 20 s",
        "",
        "12:00:00  intake  accepted  from test into toy on 2026-03-01, times of UTC+00:00",
        "12:00:00  email   waiting   until 12:00:20 (in 20 s)",
        "                            not tried: its circuit is open",
    )


def test_waiting_for_an_open_circuit(engine, boxes, send, told):
    run = engine(consumers=boxes(email=[TemporaryError("503")] * 5))
    first, *_, last = send(run, *"abcdef")
    run.work()
    next_try = run.store.circuits()[0].until
    assert next_try == run.moment[0] + timedelta(seconds=1)
    is_told(
        told(run, last, width=120),
        f"{last.id} f",
        "email: waiting while its circuit is open, next try in 1 s",
        "",
        "12:00:00  intake  accepted  from test into toy on 2026-03-01, times of UTC+00:00",
        "12:00:00  email   waiting   its circuit is open since 12:00:00, next try at 12:00:01 (in 1 s)",
        "                            not tried: the circuit is open since 2026-03-01 12:00:00 UTC: 503",
    )
    run.later(seconds=2)
    assert told(run, first).splitlines()[1] == "delivered to email"


def test_on_the_queue_for_another_attempt(engine, boxes, send, told):
    run = engine(consumers=boxes(email=[TemporaryError("busy", retry_after=10)]))
    one = send(run, "disk full")
    run.work()
    run.moment[0] += timedelta(seconds=12)
    run.clock.tick()
    is_told(
        told(run, one),
        ID,
        "email: waiting",
        "",
        "12:00:00  intake  accepted  into toy on 2026-03-01, times of UTC+00:00",
        "12:00:00  email   waiting   tried once",
        "                            on the queue for another attempt; before: busy",
    )


def test_buried_with_the_way_out_and_redriven(engine, boxes, send, told):
    run = engine(
        consumers=boxes(oncall=[], email=[PermanentError("550 no such mailbox, which is a long text for what it means")])
    )
    one = send(run, "disk full")
    run.work()
    is_told(
        told(run, one),
        f"{ID} disk full",
        "delivered to oncall; email: buried",
        "",
        "12:00:00  intake  accepted   from test into toy on 2026-03-01, times of",
        "                             UTC+00:00",
        "12:00:00  email   buried     tried once",
        "                             550 no such mailbox, which is a long text for what",
        "                             it means",
        "12:00:00  oncall  delivered  at the first attempt",
        "",
        f"siftbell dead-letters redrive {ID}",
    )
    list(Redrive(run.runner.pipelines, run.store, now=lambda: run.moment[0] + timedelta(seconds=1)).run(Selection(ids=(one.id,))))
    assert "redriven from the dead letters; it had failed: 550" in " ".join(told(run, one).split())
    run.later(seconds=2)
    assert told(run, one).splitlines()[1] == "delivered to oncall and email"


def test_what_was_dropped_from_the_dead_letters(engine, boxes, send, told):
    run = engine(consumers=boxes(email=[PermanentError("no such mailbox")]))
    one = send(run, "disk full")
    run.work()
    run.store.drop_letters(Selection(ids=(one.id,)), now=run.moment[0], limit=10)
    lines = told(run, one, width=160).splitlines()
    assert lines[1] == "email: given up"
    assert lines[-1].strip() == "no such mailbox (dropped from the dead letters on 2026-03-01 12:00:00 UTC)"


def test_dropped_by_a_filter(engine, filter_step, boxes, send, told):
    config = SieveConfig(condition='severity == "critical"')
    run = engine(filters=[filter_step(Sieve, config=config, label="quiet")], consumers=boxes(oncall=[]))
    one = send(run, "disk full")
    run.work()
    is_told(
        told(run, one),
        ID,
        "dropped by quiet",
        "",
        "12:00:00  intake  accepted  into toy on 2026-03-01, times of UTC+00:00",
        '12:00:00  quiet   dropped   by quiet: severity == "critical" does not hold at',
        "                            toy.yaml:3:5",
    )


def test_a_long_reason_is_cut_in_the_record(engine, filter_step, boxes, send):
    config = SieveConfig(condition=" || ".join(f'title == "{n}"' for n in range(200)))
    run = engine(filters=[filter_step(Sieve, config=config, label="quiet")], consumers=boxes(oncall=[]))
    one = send(run, "x")
    run.work()
    (record,) = run.store.history(one.id)
    assert len(record.reason) < 550
    assert record.reason.endswith("… at toy.yaml:3:5")


def test_dropped_for_a_consumer_by_its_when(engine, consumer, boxes, send, told):
    run = engine(consumers=[*boxes(oncall=[]), consumer(Box, label="email", when='severity == "critical"')])
    one = send(run, "disk full")
    run.work()
    is_told(
        told(run, one),
        ID,
        "delivered to oncall",
        "",
        f"12:00:00  intake  {ACCEPTED}",
        '12:00:00  email   dropped    by when: severity == "critical" at toy.yaml:3:5',
        "12:00:00  oncall  delivered  at the first attempt",
    )


def test_split_with_the_fate_of_each_part(engine, filter_step, boxes, send, told):
    run = engine(filters=[filter_step(Twice)], consumers=boxes(oncall=[], email=[None, TemporaryError("busy", retry_after=60)]))
    one = send(run, "disk full")
    run.work()
    run.moment[0] += timedelta(seconds=5)
    first, second = derived_id(one.id, "twice", 0), derived_id(one.id, "twice", 1)
    is_told(
        told(run, one, width=100),
        ID,
        "went on from twice as 2 others: which fared differently",
        "",
        "12:00:00  intake  accepted  into toy on 2026-03-01, times of UTC+00:00",
        "12:00:00  twice   replaced  split into 2 by twice at toy.yaml:3:5",
        "",
        f"  {first}",
        "  delivered to email and oncall",
        "  12:00:00  email   delivered  at the first attempt",
        "  12:00:00  oncall  delivered  at the first attempt",
        "",
        f"  {second} second",
        "  delivered to oncall; email: held, next try in 1 min 1 s",
        "  12:00:00  email   held       tried once; next at 12:01:06 (in 1 min 1 s)",
        "                               last error: busy",
        "  12:00:00  oncall  delivered  at the first attempt",
    )
    assert f"12:00:00  twice   came of    {ID}: split into 2" in told(run, Message(id=second, source=""), width=120)


def test_the_key_of_all_messages_says_nothing(engine, filter_step, boxes, send, told):
    run = engine(filters=[filter_step(Digest)], consumers=boxes(oncall=[]))
    one = send(run, "a", key=By().key(Message(source="")))
    run.work()
    assert "                            in a window" in told(run, one, width=100)


def test_a_window_and_what_became_of_the_digest(engine, filter_step, boxes, send, told):
    run = engine(filters=[filter_step(Digest)], consumers=boxes(oncall=[]))
    one, two = send(run, "a", "b", key="db1")
    run.work()
    run.moment[0] += timedelta(seconds=5)
    is_told(
        told(run, one, width=100),
        f"{ID} a",
        "digest: waiting, due in 25 s",
        "",
        "12:00:00  intake  accepted  from test into toy on 2026-03-01, times of UTC+00:00",
        "12:00:00  digest  waiting   until 12:00:30 (in 25 s)",
        "                            in the window of 'db1'",
    )
    run.later(seconds=30)
    digest = derived_id(one.id, "digest", two.id, "2026-03-01T12:00:30.000000", 0)
    is_told(
        told(run, two),
        two.id,
        "went on from digest as 1 other: delivered to oncall",
        "",
        "12:00:00  intake  accepted  into toy on 2026-03-01, times of UTC+00:00",
        "12:00:35  digest  replaced  left the window with 1 more as 1 message",
        "",
        f"  {digest}",
        "  delivered to oncall",
        "  12:00:35  oncall  delivered  at the first attempt",
    )
    lines = told(run, Message(id=digest, source=""), width=120).splitlines()
    assert lines[4:6] == [f"12:00:35  digest  came of    {of.id}: left the window with 1 more as 1 message" for of in (one, two)]


def test_a_message_in_whose_place_another_one_waits_is_told_of_in_one_sentence(engine, filter_step, boxes, send, told):
    run = engine(filters=[filter_step(Group)], consumers=boxes(oncall=[]))
    one, _ = send(run, "a", "b", key="db1")
    run.work()
    assert told(run, one).splitlines()[1] == "group: waiting, due in 30 s"
    run.later(seconds=31)
    assert told(run, one).splitlines()[1] == "went on from group as 1 other: delivered to oncall"


def test_a_message_that_leaves_a_window_as_itself_goes_on(engine, filter_step, boxes, send, told):
    run = engine(filters=[filter_step(Digest)], consumers=boxes(oncall=[]))
    one = send(run, "a", key="db1")
    run.work()
    run.later(seconds=31)
    is_told(
        told(run, one),
        ID,
        "delivered to oncall",
        "",
        f"12:00:00  intake  {ACCEPTED}",
        "12:00:31  digest  passed     left the window as itself",
        "12:00:31  oncall  delivered  at the first attempt",
    )


def test_on_the_queue_of_a_consumer(engine, boxes, send, told):
    run = engine(consumers=boxes(oncall=[], email=[]))
    one = send(run, "disk full")
    run.runner.run(run.queue.take()[0])
    run.runner.run(run.queue.take()[0])
    is_told(
        told(run, one),
        ID,
        "delivered to oncall; nothing yet from email",
        "",
        "12:00:00  intake  accepted     into toy on 2026-03-01, times of UTC+00:00",
        "12:00:00  oncall  delivered    at the first attempt",
        "          email   nothing yet  on the queue out.email, or newer than the message",
    )


def test_in_line_behind_others_of_its_key(engine, boxes, told, message):
    run = engine(consumers=boxes(email=[]))
    first, second = (message(id=id_at(run.moment[0], number), title="disk full", key="db1") for number in range(2))
    run.store.settle(
        records=[
            Record(message_id=first.id, pipeline="toy", step="email", outcome=Outcome.HELD, at=run.moment[0], reason="busy"),
            Record(message_id=second.id, pipeline="toy", step="email", outcome=Outcome.HELD, at=run.moment[0], attempt=0),
        ],
        lined=[
            Lined(message=one, pipeline="toy", step="email", due=run.moment[0] + timedelta(seconds=9)) for one in (first, second)
        ],
    )
    assert told(run, first).splitlines()[-2:] == [
        "12:00:00  email   held      tried once; next at 12:00:09 (in 9 s)",
        "                            last error: busy",
    ]
    is_told(
        told(run, second, width=140),
        f"{second.id} disk full",
        "email: waiting",
        "",
        "12:00:00  intake  accepted  from test into toy on 2026-03-01, times of UTC+00:00",
        f"12:00:00  email   waiting   in line behind 1 more of key 'db1', the first is {first.id}",
    )


def test_in_the_spool(engine, boxes, send, told, message):
    run = engine(consumers=boxes(oncall=[]))
    one = message(id=ID, title="disk full")
    run.store.settle(held=[Held(message=one, pipeline="toy", step="", why=Why.SPOOL, due=run.moment[0])])
    is_told(
        told(run, one, width=120),
        f"{ID} disk full",
        "the intake: waiting, due now",
        "",
        "12:00:00  intake  accepted  from test into toy on 2026-03-01, times of UTC+00:00",
        "          intake  waiting   until 12:00:00 (due now)",
        "                            the broker was away: it is in the store, and goes on the queue when the broker is back",
    )


def test_a_dead_letter_without_a_record_and_a_step_that_is_gone(engine, boxes, told, message):
    run = engine(consumers=boxes(oncall=[]))
    one = message(id="mine-1", title="odd")
    run.store.settle(dead=[DeadLetter(message=one, pipeline="toy", step="old", error="no", at=run.moment[0])])
    is_told(
        told(run, one, width=120),
        "mine-1 odd",
        "old: buried",
        "",
        "          intake  accepted  from test into toy; when is not to be seen from its id",
        "12:00:00  old     buried    tried once",
        "                            no",
        "                            the configuration has no such step any more",
        "",
        "siftbell dead-letters redrive mine-1",
    )


def test_what_is_not_known_is_none(engine, boxes, message):
    run = engine(consumers=boxes(oncall=[]))
    assert explain(run.store, [], message().id, run.moment[0]) is None
    assert explain(run.store, [], "x", run.moment[0]) is None


def test_a_message_that_became_very_many_names_some_of_them(engine, filter_step, boxes, send):
    class Many(Filter[NoOptions]):
        """Splits each message into many."""

        def filter(self, message):
            return [message.replace(title=str(n)) for n in range(150)]

    run = engine(filters=[filter_step(Many)], consumers=boxes(oncall=[]))
    one = send(run, "x")
    run.work()
    found = explain(run.store, [run.runner.pipelines["toy"].spec], one.id, run.moment[0])
    assert found.entries[0].reason.startswith("split into 150 ")
    assert len(found.entries[0].became) == 100
    assert len(found.became) == MOST_PARTS
    assert found.answer == "went on from many as 100 or more others: each delivered to oncall"


def test_ids_that_begin_alike(engine, boxes, message):
    run = engine(consumers=boxes(oncall=[]))
    ids = [id_at(run.moment[0], number) for number in (1, 2)] + [id_at(run.moment[0] + timedelta(days=3))]
    run.store.settle(
        records=[Record(message_id=ids[0], pipeline="toy", step="oncall", outcome=Outcome.DELIVERED, at=run.moment[0])],
        dead=[DeadLetter(message=message(id=one), pipeline="toy", step="s", error="no", at=run.moment[0]) for one in ids[1:]],
    )
    assert ids_like(run.store, ids[0][:12], 10) == ids[:2]
    assert ids_like(run.store, ids[0][:12], 1) == ids[:1]
    assert ids_like(run.store, ids[2], 10) == ids_like(run.store, ids[2].upper()[:10], 10) == ids[2:]
    assert ids_like(run.store, "", 10) == ids_like(run.store, "no", 10) == ids_like(run.store, ids[0] + "0", 10) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (90061, "1 d 1 h"), (86430, "1 d"), (-5, "0 s")],
)
def test_a_length_of_time_in_words(seconds, words):
    assert span(timedelta(seconds=seconds)) == words


def test_the_time_in_an_id(engine, boxes):
    run = engine(consumers=boxes(oncall=[]))
    assert accepted_at(id_at(run.moment[0])) == run.moment[0]
    assert accepted_at("x") is None
    assert accepted_at("123e4567-e89b-42d3-a456-426614174000") is None
