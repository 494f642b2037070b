"""The journey of a batch: filtered, queued once per consumer, delivered, and every decision on record."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
import structlog
from pydantic import SecretStr
from structlog.testing import LogCapture

from pipeline import BatchConsumer, Config, Consumer, Filter, NoOptions, PermanentError, RememberingFilter, TemporaryError
from pipeline.engine import decisions, delivery
from pipeline.engine.batch import MAX_AT_ONCE, MAX_DELIVER, MAX_PROCESS, Batch, encode
from pipeline.engine.joined import outline
from pipeline.engine.retry import NotTriedError
from pipeline.engine.routes import first_batch, most_at_first
from pipeline.engine.runner import DEATHS_BEFORE_BURIAL
from pipeline.engine.written import divide, write
from pipeline.spec.model import Retry
from pipeline.store import Held, Outcome, Why


class Box(Consumer[NoOptions]):
    """Keeps what it gets; raises what it is told to."""

    got: list
    answers: list

    def consume(self, message):
        if type(self).answers and (answer := type(self).answers.pop(0)) is not None:
            raise answer
        type(self).got.append(message)


@pytest.fixture
def box():
    return type("Box", (Box,), {"got": [], "answers": []})


@pytest.fixture
def other():
    return type("Other", (Box,), {"got": [], "answers": []})


class Upper(Filter[NoOptions]):
    """Writes titles in capitals."""

    def filter(self, message):
        yield message.replace(title=message.title.upper())


class OnlyLoud(Filter[NoOptions]):
    """Drops what is not loud."""

    def filter(self, message):
        if message.labels.get("loud"):
            yield message


class Twice(Filter[NoOptions]):
    """Splits each message into two."""

    def filter(self, message):
        return [message.replace(title="first"), message.replace(title="second")]


class Broken(Filter[NoOptions]):
    """Has a bug."""

    def filter(self, message):
        if message.title == "bad":
            raise ZeroDivisionError("oh")
        if message.title == "never":
            raise PermanentError("not ours")
        if message.title == "number":
            return [3]
        return [message]


def test_filters_in_order_then_one_batch_for_each_consumer(engine, filter_step, consumer, box, other, message):
    run = engine(filters=[filter_step(OnlyLoud), filter_step(Upper)], consumers=[consumer(box), consumer(other, label="other")])
    loud, quiet = message(title="hi", labels={"loud": "yes"}), message(title="psst")
    run.send(loud, quiet)
    run.runner.run(run.queue.take()[0])
    batches = run.queue.take()
    assert [(b.job, b.queue, b.step, [m.title for m in b.messages]) for b in batches] == [
        ("deliver", "out.box", "box", ["HI"]),
        ("deliver", "out.other", "other", ["HI"]),
    ]
    run.queue.publish(batches)
    run.work()
    assert [m.id for m in box.got] == [m.id for m in other.got] == [loud.id]
    assert run.outcomes(loud) == {"box": "delivered", "other": "delivered"}
    (dropped,) = run.store.history(quiet.id)
    assert (dropped.outcome, dropped.reason) == ("dropped", "by onlyloud at toy.yaml:3:5")


def test_nothing_left_is_nothing_queued(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(OnlyLoud), filter_step(Upper)], consumers=[consumer(box)])
    run.send(message())
    run.work()
    assert box.got == []


def test_parts_of_a_split_message_have_the_same_ids_in_a_repeat(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Twice)], consumers=[consumer(box)])
    whole = message()
    run.send(whole)
    (batch,) = run.queue.take()
    run.runner.run(batch)
    run.runner.run(batch)
    run.work()
    assert [m.title for m in box.got] == ["first", "second"]
    assert len({m.id for m in box.got} | {whole.id}) == 3
    assert run.outcomes(whole) == {"twice": "replaced"}


def test_one_message_out_keeps_the_id_it_came_with(engine, filter_step, consumer, box, message):
    class Anew(Filter[NoOptions]):
        """Makes a new message."""

        def filter(self, old):
            return [message(title="new")]

    run = engine(filters=[filter_step(Anew)], consumers=[consumer(box)])
    old = message()
    run.send(old)
    run.work()
    assert [(m.id, m.title) for m in box.got] == [(old.id, "new")]


def test_a_filter_that_raises_buries_that_message_alone(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Broken)], consumers=[consumer(box)])
    good, bad, never, number = (message(title=title) for title in ("good", "bad", "never", "number"))
    run.send(good, bad, never, number)
    run.work()
    assert [m.id for m in box.got] == [good.id]
    letters = {letter.message.id: letter for letter in run.store.dead_letters()}
    assert letters[bad.id].error == "ZeroDivisionError: oh"
    assert "in filter" in letters[bad.id].traceback
    assert (letters[never.id].error, letters[never.id].traceback) == ("not ours", "")
    assert letters[number.id].error == "filter 'broken' yielded int, not a message"
    assert run.outcomes(bad) == {"broken": "buried"}


def test_a_filter_that_cannot_work_now_holds_its_message_until_it_can(engine, filter_step, consumer, box, message):
    class Away(Filter[NoOptions]):
        """Is away twice."""

        left = 2

        def filter(self, one):
            if Away.left:
                Away.left -= 1
                raise TemporaryError("look-up away", retry_after=10)
            yield one

    run = engine(filters=[filter_step(Upper), filter_step(Away)], consumers=[consumer(box)])
    held = message(title="x")
    run.send(held)
    run.work()
    assert run.outcomes(held) == {"away": "held"}
    run.later(seconds=5)
    assert Away.left == 1
    run.later(seconds=7)
    assert Away.left == 0
    run.later(seconds=12)
    assert [m.title for m in box.got] == ["X"]
    assert run.store.held_counts() == {}


def test_when_on_a_filter_and_on_a_consumer(engine, filter_step, consumer, box, other, message):
    run = engine(
        filters=[filter_step(Upper, when='severity == "critical"')],
        consumers=[consumer(box, when='severity == "critical"'), consumer(other, label="other")],
    )
    critical, info = message(title="a", severity="critical"), message(title="b", severity="info")
    run.send(critical, info)
    run.work()
    assert [m.title for m in box.got] == ["A"]
    assert [m.title for m in other.got] == ["A", "b"]
    (record,) = [r for r in run.store.history(info.id) if r.step == "box"]
    assert record.reason == 'by when: severity == "critical" at toy.yaml:3:5'


def test_a_filter_with_a_queue_of_its_own_is_a_new_hop(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(OnlyLoud), filter_step(Upper, queue="slow")], consumers=[consumer(box)])
    run.send(message(title="x", labels={"loud": "1"}))
    run.runner.run(run.queue.take()[0])
    (hop,) = run.queue.take()
    assert (hop.job, hop.queue, hop.step) == ("process", "slow", "onlyloud")
    run.queue.publish([hop])
    run.work()
    assert [m.title for m in box.got] == ["X"]


def test_a_first_filter_with_a_queue_of_its_own_gets_what_comes_in(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Upper, queue="slow")], consumers=[consumer(box)])
    run.send(message(title="x"))
    assert [batch.queue for batch in run.queue.batches] == ["slow"]
    run.work()
    assert [m.title for m in box.got] == ["X"]


def test_memory_is_handed_to_a_remembering_filter(engine, filter_step, consumer, box, message):
    class Once(RememberingFilter[NoOptions]):
        """Passes the first of a key."""

        def filter(self, one, memory):
            if memory.first(one.key, timedelta(minutes=10)):
                yield one

    run = engine(filters=[filter_step(Once)], consumers=[consumer(box)])
    run.send(message(key="a", title="1"), message(key="a", title="2"), message(key="b", title="3"))
    run.work()
    assert [m.title for m in box.got] == ["1", "3"]


class Archive(BatchConsumer[NoOptions]):
    """Notes how many messages each call has."""

    calls: list

    def consume_many(self, messages):
        type(self).calls.append(len(messages))
        return {}


def test_a_consumer_has_a_memory_that_other_workers_share(engine, consumer, message):
    seen = []

    class Editing(Consumer[NoOptions]):
        """Knows what it sent before."""

        def open(self):
            self.memory.remember("opened", "yes", timedelta(days=1))

        def consume(self, message):
            seen.append((self.memory.recall("opened"), self.memory.recall(message.key)))
            self.memory.remember(message.key, message.title, timedelta(days=1))

    run = engine(consumers=[consumer(Editing)])
    for title in ("first", "second"):
        run.send(message(key="k", title=title))
        run.work()
    assert seen == [("yes", None), ("yes", "first")]
    assert run.runner.memory.scoped("toy", "editing").recall("k") == "second"


def test_a_consumer_that_takes_batches_gets_larger_ones(engine, consumer, box, message):
    archive = type("Archive", (Archive,), {"calls": []})
    run = engine(consumers=[consumer(box), consumer(archive)])
    run.send(*(message(title=str(number)) for number in range(MAX_PROCESS)))
    for batch in run.queue.take():
        run.runner.run(batch)
    sizes = {"box": [], "archive": []}
    for batch in run.queue.batches:
        sizes[batch.step].append(len(batch.messages))
    assert sizes == {"box": [MAX_DELIVER] * 5, "archive": [MAX_AT_ONCE]}
    run.work()
    assert (len(box.got), archive.calls) == (500, [500])


def test_where_nothing_is_decided_before_the_only_consumer_messages_go_straight_to_it(engine, consumer, box, message):
    archive = type("Archive", (Archive,), {"calls": []})
    messages = [message() for _ in range(250)]
    for plugin, sizes in ((box, [100, 100, 50]), (archive, [250])):
        run = engine(consumers=[consumer(plugin)])
        run.send(*messages)
        batches = run.queue.take()
        assert [len(batch.messages) for batch in batches] == sizes
        step = plugin.__name__.lower()
        assert {(b.job, b.queue, b.step, b.attempt, b.revision) for b in batches} == {("deliver", f"out.{step}", step, 1, "r1")}
        run.queue.publish([*batches, *batches])
        run.work()
    assert len(box.got) == sum(archive.calls) == 250
    assert run.store.counts() == {("toy", step, Outcome.DELIVERED): 250 for step in ("box", "archive")}


def test_what_went_straight_to_its_consumer_and_to_the_spool_as_well_is_delivered_once(engine, consumer, box, message):
    """So it is where the broker confirmed too late, or some of several batches only."""
    run = engine(consumers=[consumer(box)])
    messages = [message() for _ in range(3)]
    run.send(*messages[:2])
    now = run.runner.now()
    run.store.settle(held=[Held(message=m, pipeline="toy", step="", why=Why.SPOOL, due=now, revision="r1") for m in messages])
    run.later(seconds=1)
    assert {one.id for one in box.got} == {one.id for one in messages}
    assert len(box.got) == 3
    assert run.store.held_counts() == {}


def test_what_the_intake_has_written_goes_straight_too(engine, consumer, box, message):
    run = engine(consumers=[consumer(box)])
    pipeline = run.runner.pipelines["toy"]
    messages = [message(title=str(number)) for number in range(120)]
    pieces = write(messages, run.queue.largest)
    run.queue.publish([first_batch(pipeline, part) for part in divide(pieces, most_at_first(pipeline))])
    assert [(batch.job, len(batch.messages)) for batch in run.queue.batches] == [("deliver", 100), ("deliver", 20)]
    run.work()
    assert sorted(box.got, key=lambda one: one.id) == sorted(messages, key=lambda one: one.id)


@pytest.mark.parametrize("how", ["a filter", "a condition", "another consumer", "in order"])
def test_what_is_decided_before_consumers_is_decided_by_workers(engine, filter_step, consumer, box, message, how):
    class Through(Filter[NoOptions]):
        """Lets everything through."""

        def filter(self, one):
            yield one

    siblings = {"a condition": {"when": 'source == "test"'}, "in order": {"ordered": True}}.get(how, {})
    more = [consumer(type("Archive", (Archive,), {"calls": []}))] if how == "another consumer" else []
    run = engine(filters=[filter_step(Through)] if how == "a filter" else (), consumers=[consumer(box, **siblings), *more])
    run.send(message())
    assert [batch.job for batch in run.queue.batches] == ["process"]
    run.work()
    assert len(box.got) == 1


def test_a_redelivered_batch_is_not_delivered_again(engine, consumer, box, message):
    run = engine(consumers=[consumer(box)])
    run.send(message())
    (batch,) = run.queue.take()
    run.runner.run(batch)
    run.runner.run(batch)
    assert len(box.got) == 1


def test_a_temporary_error_is_tried_again_and_the_others_go_through(engine, consumer, box, message):
    run = engine(consumers=[consumer(box, concurrency=1)])
    first, second = message(title="1"), message(title="2")
    box.answers = [TemporaryError("busy", retry_after=30)]
    run.send(first, second)
    (batch,) = run.queue.take()
    run.runner.run(batch)
    assert [m.title for m in box.got] == ["2"]
    assert run.outcomes(first) == {"box": "held"}
    run.runner.run(batch)
    assert len(box.got) == 1, "a redelivery does not overtake the wait"
    run.later(seconds=29)
    assert len(box.got) == 1
    run.later(seconds=5)
    assert [m.title for m in box.got] == ["2", "1"]
    (record,) = run.store.history(first.id)
    assert (record.outcome, record.attempt) == ("delivered", 2)
    assert run.store.held_counts() == {}


def test_what_ran_as_one_goes_back_in_batches_that_every_queue_takes(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Upper)], consumers=[consumer(box)])
    messages = [message(title=str(number)) for number in range(2 * MAX_PROCESS + 1)]
    run.runner.lost(Batch(job="process", queue="in", pipeline="toy", messages=messages))
    assert [(len(batch.messages), batch.deaths) for batch in run.queue.batches] == [(MAX_PROCESS, 1), (MAX_PROCESS, 1), (1, 1)]


def test_retries_end_with_the_dead_letters(engine, consumer, box, message):
    run = engine(consumers=[consumer(box, retry=Retry(timedelta(minutes=5)))])
    box.answers = [TemporaryError("busy")] * 100
    one = message()
    run.send(one)
    run.work()
    for _ in range(40):
        run.later(seconds=10)
    (letter,) = run.store.dead_letters()
    assert letter.message == one
    assert letter.error.startswith("given up after")
    assert letter.error.endswith(": busy")
    assert f"after {letter.attempts} attempts" in letter.error
    assert letter.attempts > 3
    assert run.store.held_counts() == {}


def test_a_permanent_error_and_a_bug_are_buried(engine, consumer, box, message):
    run = engine(consumers=[consumer(box, concurrency=1)])
    box.answers = [PermanentError("no such chat"), KeyError("x"), None]
    run.send(message(title="1"), message(title="2"), message(title="3"))
    run.work()
    assert [m.title for m in box.got] == ["3"]
    errors = {letter.message.title: (letter.error, bool(letter.traceback)) for letter in run.store.dead_letters()}
    assert errors == {"1": ("no such chat", False), "2": ("KeyError: 'x'", True)}


def test_what_failed_is_logged_in_a_line_for_each_outcome_not_for_each_message(engine, consumer, box, message, monkeypatch):
    logged = LogCapture()
    own = structlog.wrap_logger(None, processors=[logged], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(decisions, "log", own)
    run = engine(consumers=[consumer(box, concurrency=1)])
    box.answers = [TemporaryError("busy"), PermanentError("no such chat"), TemporaryError("busy too"), None]
    sent = [message(title=str(number)) for number in range(4)]
    run.send(*sent)
    run.work()
    told = [(line["log_level"], line["step"], line["messages"], line["message"], line["error"]) for line in logged.entries]
    assert told == [("warning", "box", 2, sent[0].id, "busy"), ("error", "box", 1, sent[1].id, "no such chat")]


def test_async_consumers_run_at_once_up_to_their_concurrency(engine, consumer, message):
    class Meeting(Consumer[NoOptions]):
        """Lets nobody through until three are there."""

        inside = most = 0
        complete = asyncio.Event()

        async def consume(self, one):
            Meeting.inside += 1
            Meeting.most = max(Meeting.most, Meeting.inside)
            if Meeting.most == 3:
                Meeting.complete.set()
            await Meeting.complete.wait()
            Meeting.inside -= 1
            if one.title == "bad":
                raise PermanentError("bad")

    run = engine(consumers=[consumer(Meeting, concurrency=3)])
    bad = message(title="bad")
    run.send(*(message() for _ in range(9)), bad)
    run.work()
    assert Meeting.most == 3
    assert [letter.message.id for letter in run.store.dead_letters()] == [bad.id]


def test_a_consumer_that_hangs_gives_its_message_back(engine, consumer, message, monkeypatch):
    monkeypatch.setattr(delivery, "CALL_LIMIT", 0.05)
    monkeypatch.setattr(delivery, "BATCH_LIMIT", 0.0)
    released = threading.Event()

    class Hanging(Consumer[NoOptions]):
        """Never answers."""

        async def consume(self, one):
            await asyncio.Event().wait()

    class Stuck(Consumer[NoOptions]):
        """Never answers, in a thread."""

        def consume(self, one):
            released.wait()

    hanging = delivery.deliver(Hanging(NoOptions()), [message()], concurrency=1)
    stuck = delivery.deliver(Stuck(NoOptions()), [message()], concurrency=1)
    released.set()
    for outcomes in (hanging, stuck):
        (error,) = outcomes.values()
        assert isinstance(error, TemporaryError)


def test_a_batch_that_takes_too_long_hands_back_what_had_no_turn(message, monkeypatch):
    monkeypatch.setattr(delivery, "BATCH_LIMIT", -1.0)

    class Never(Consumer[NoOptions]):
        """Must not be called."""

        def consume(self, one):
            raise AssertionError

    class NeverAsync(Consumer[NoOptions]):
        """Must not be called."""

        async def consume(self, one):
            raise AssertionError

    for kind in (Never, NeverAsync):
        (error,) = delivery.deliver(kind(NoOptions()), [message()], concurrency=1).values()
        assert isinstance(error, NotTriedError)
        assert error.until is None, "it comes back at once"
        assert not error.counts, "a service that is slow and works is no reason to give a message up"


def test_a_batch_consumer_says_which_failed(engine, consumer, message):
    class Bulk(BatchConsumer[NoOptions]):
        """Takes batches."""

        calls: list = []
        broken = False

        def consume_many(self, messages):
            Bulk.calls.append([m.title for m in messages])
            if Bulk.broken:
                raise TemporaryError("gone", retry_after=1)
            return {m.id: PermanentError("odd") for m in messages if m.title == "odd"}

    run = engine(consumers=[consumer(Bulk)])
    run.send(message(title="even"), message(title="odd"))
    run.work()
    assert Bulk.calls == [["even", "odd"]]
    assert [letter.message.title for letter in run.store.dead_letters()] == ["odd"]
    Bulk.broken = True
    run.send(message(title="again"))
    run.work()
    Bulk.broken = False
    run.later(seconds=2)
    assert Bulk.calls[1:] == [["again"], ["again"]]


def test_a_consumer_that_cannot_be_opened_costs_nothing(engine, consumer, message):
    class Shut(Consumer[NoOptions]):
        """Opens at the second try."""

        tries = 0
        got: list = []

        def open(self):
            Shut.tries += 1
            if Shut.tries == 1:
                raise OSError("no such directory")

        def consume(self, one):
            Shut.got.append(one)

    run = engine(consumers=[consumer(Shut)])
    one = message()
    run.send(one)
    run.work()
    assert run.outcomes(one) == {"shut": "held"}
    run.later(seconds=2)
    assert Shut.got == [one]


def test_what_stands_where_nothing_is_any_more_is_buried(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Upper)], consumers=[consumer(box)])
    gone = {"pipeline": "nowhere"}, {"step": "nofilter"}, {"job": "deliver", "step": "noconsumer"}
    for change in gone:
        batch = Batch(job="process", queue="in", pipeline="toy", messages=[message()], revision="r0")
        run.runner.run(batch.replace(**change))
    assert {letter.error for letter in run.store.dead_letters()} == {
        "there is no pipeline 'nowhere' any more",
        "pipeline 'toy' has no filter 'nofilter' any more",
        "pipeline 'toy' has no consumer 'noconsumer' any more",
    }


DEEP = b'{"job": "process", "pipeline": "toy", "queue": "in", "messages": [{"data": ' + b"[" * 2000 + b"]" * 2000 + b"}]}"


@pytest.mark.parametrize("text", [b'{"job": "dance"}', b"", b'{"job": "process", "queue": "\xff"}', DEEP])
def test_a_text_that_is_no_batch_is_buried_as_it_is(engine, message, text):
    run = engine()
    run.runner.run_text(text)
    (letter,) = run.store.dead_letters()
    assert letter.message.data == text.decode(errors="replace")
    assert letter.error.startswith("not a batch")
    assert outline(text) is None
    run.runner.run_text(encode(Batch(job="process", queue="in", pipeline="toy", messages=[message()])))
    assert len(run.store.dead_letters()) == 1


def test_the_queue_away_leaves_the_batch_to_be_run_again(engine, consumer, box, message):
    run = engine(consumers=[consumer(box, when='source == "test"')])
    run.send(message())
    (batch,) = run.queue.take()
    run.queue.away = True
    with pytest.raises(TemporaryError):
        run.runner.run(batch)
    run.queue.away = False
    run.runner.run(batch)
    run.work()
    assert len(box.got) == 1


def test_a_batch_that_kills_workers_is_taken_apart_until_the_poison_is_alone(engine, consumer, box, message):
    run = engine(consumers=[consumer(box)])
    poison = message(title="poison")
    run.send(*(message() for _ in range(6)), poison)
    deaths = 0
    while batches := run.queue.take():
        for batch in batches:
            if poison in batch.messages:
                deaths += 1
                run.runner.lost(batch)
            else:
                run.runner.run(batch)
    assert len(box.got) == 6
    (letter,) = run.store.dead_letters()
    assert letter.message == poison
    assert letter.error == f"its worker died {DEATHS_BEFORE_BURIAL} times while it was working on this message"
    assert deaths < 10


class Tokens(Config):
    """Options with a secret."""

    token: SecretStr


class Leaky(Consumer[Tokens]):
    """Raises what its library would: with the token in it."""

    errors: list

    def consume(self, message):
        raise type(self).errors.pop(0)(f"GET https://x.example/bot{self.config.token.get_secret_value()}/send failed")


def test_a_secret_in_what_a_plugin_raises_shows_nowhere(engine, consumer, message, capsys):
    leaky = type("Leaky", (Leaky,), {"errors": [ValueError, PermanentError, TemporaryError]})
    config = Tokens(token="s3cret/token")
    run = engine(consumers=[consumer(leaky, config=config, concurrency=1)])
    sent = [message(title=str(number)) for number in range(3)]
    run.send(*sent)
    run.work()
    letters = run.store.dead_letters()
    shown = "".join(letter.error + letter.traceback for letter in letters)
    shown += "".join(record.reason for one in sent for record in run.store.history(one.id))
    printed = capsys.readouterr()
    shown += printed.out + printed.err
    assert len(letters) == 2
    assert shown.count("bot***/send") >= 6
    assert "s3cret" not in shown


def test_what_is_larger_than_the_queue_takes_is_buried_and_holds_up_nothing(engine, consumer, message, box):
    """It came through another broker, or a filter made it grow: no later try would fare better."""
    run = engine(consumers=[consumer(box, when='source == "test"')])
    small, large = message(title="small"), message(title="large", text="x" * 300_000)
    run.send(large, small)
    run.queue.largest = 200_000
    run.work()
    assert box.got == [small]
    (letter,) = run.store.dead_letters()
    assert letter.message == large
    assert "the queue takes 200000" in letter.error
    assert run.store.held_counts() == {}
