"""A consumer's `render`: what it alone gets is written anew, and all that the engine keeps stays as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import BatchConsumer, Consumer, NoOptions, PermanentError, Rendering, Request, TemporaryError
from pipeline.engine.dryrun import dry_run
from pipeline.spec.model import Retry
from pipeline.store.rows import CircuitState
from pipeline.units import parse_rate
from producers.http import Http, HttpConfig

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
JSON = {"content-type": "application/json"}
SHOUT = Rendering(title="{{ title | upper }}!", text="{{ labels.team }}")


class Box(Consumer[NoOptions]):
    """Keeps what it gets; raises what it is told to."""

    got: list
    answers: list

    def consume(self, message):
        type(self).got.append(message)
        if type(self).answers and (answer := type(self).answers.pop(0)) is not None:
            raise answer


class Batches(BatchConsumer[NoOptions]):
    """Keeps the batches that it gets."""

    got: list

    def consume_many(self, messages):
        type(self).got.append([*messages])
        return {}


@pytest.fixture
def box():
    return type("Box", (Box,), {"got": [], "answers": []})


@pytest.fixture
def other():
    return type("Other", (Box,), {"got": [], "answers": []})


def test_one_consumer_alone_gets_it_so_under_the_same_id(engine, consumer, box, other, message):
    run = engine(consumers=[consumer(box, render=SHOUT), consumer(other, label="other")])
    one = message(title="disk full", text="x", labels={"team": "db"}, key="k", data={"a": 1})
    run.send(one)
    run.work()
    assert box.got == [one.replace(title="DISK FULL!", text="db")]
    assert other.got == [one]
    assert run.outcomes(one) == {"box": "delivered", "other": "delivered"}


def test_a_template_that_fails_buries_the_message_for_that_consumer_with_field_and_place(engine, consumer, box, other, message):
    run = engine(consumers=[consumer(box, render=SHOUT), consumer(other, label="other")])
    good, bad = message(title="a", labels={"team": "db"}), message(title="b")
    run.send(bad, good)
    run.work()
    assert [one.id for one in box.got] == [good.id]
    assert {one.id for one in other.got} == {good.id, bad.id}
    assert run.outcomes(bad) == {"box": "buried", "other": "delivered"}
    (letter,) = run.store.dead_letters()
    assert letter.message == bad
    assert letter.error.startswith("render.text: the template, line 1: the message has no labels.team")
    assert letter.error.endswith("(of the consumer at toy.yaml:3:5)")


def test_what_cannot_be_written_says_nothing_of_the_service(engine, consumer, box, message):
    run = engine(consumers=[consumer(box, render=SHOUT, retry=Retry(first=timedelta(seconds=1)))])
    box.answers = [TemporaryError("away")] * 5
    run.send(*(message(labels={"team": "db"}) for _ in range(5)))
    run.work()
    assert run.store.circuit("toy", "box").state is CircuitState.OPEN
    bad = message()
    run.send(bad)
    run.later(hours=1)
    assert run.outcomes(bad) == {"box": "buried"}
    calls = len(box.got)
    assert calls > 5
    assert {one.text for one in box.got} == {"db"}


def test_it_is_written_from_what_was_kept_at_each_attempt(engine, consumer, box, message):
    run = engine(consumers=[consumer(box, render=SHOUT)])
    box.answers = [TemporaryError("away"), TemporaryError("away"), None]
    one = message(title="a", labels={"team": "db"})
    run.send(one)
    run.work()
    run.later(hours=1)
    run.later(hours=1)
    assert [one.title for one in box.got] == ["A!"] * 3
    assert run.outcomes(one) == {"box": "delivered"}


def test_batches_stay_batches(engine, consumer, message):
    batches = type("Batches", (Batches,), {"got": []})
    run = engine(consumers=[consumer(batches, render=SHOUT)])
    sent = [message(title=str(number), labels={"team": "db"} if number % 2 else {}) for number in range(6)]
    run.send(*sent)
    run.work()
    assert [[one.title for one in batch] for batch in batches.got] == [["1!", "3!", "5!"]]
    assert {one.message.title for one in run.store.dead_letters()} == {"0", "2", "4"}


def test_the_order_is_that_of_the_keys_as_they_came(engine, consumer, box, message):
    run = engine(consumers=[consumer(box, render=Rendering(key="all"), ordered=True)])
    box.answers = [TemporaryError("away")]
    sent = [message(key=key, title=str(number)) for number, key in enumerate("aba")]
    run.send(*sent)
    for _ in range(20):
        run.later(seconds=30)
    assert [one.title for one in box.got if one.title != "1"] == ["0", "0", "2"]
    assert {one.key for one in box.got} == {"all"}
    assert {run.outcomes(one)["box"] for one in sent} == {"delivered"}


def test_what_cannot_be_written_takes_no_turn_of_a_rate(engine, consumer, box, message):
    run = engine(consumers=[consumer(box, render=SHOUT, rate=parse_rate("2/s"))])
    bad = [message() for _ in range(50)]
    run.send(*bad, message(title="a", labels={"team": "db"}))
    run.work()
    assert [one.title for one in box.got] == ["A!"]


def test_a_dry_run_shows_it_as_it_would_be_written(spec, producer, consumer, box):
    toy = spec([producer(Http, config=HttpConfig())], (), [consumer(box, render=SHOUT), consumer(box, label="other")])
    trace = dry_run(
        toy, toy.producers[0], Request(b'[{"title": "a", "labels": {"team": "db"}}, {"title": "b"}]', JSON), now=START
    )
    assert trace.refused is None
    fine, bad = trace.journeys
    assert [delivery.preview["title"] for delivery in fine.deliveries] == ["A!", "a"]
    assert [delivery.did for delivery in bad.deliveries] == ["failed", "would send"]
    assert "render.text: " in bad.deliveries[0].reason
    assert trace.failed


OUTCOMES = st.lists(st.sampled_from(["fine", "unwritable", "refused", "away"]), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(outcomes=OUTCOMES)
def test_each_message_is_delivered_or_buried_once_whatever_becomes_of_the_others(engine, consumer, message, outcomes):
    class Picky(Consumer[NoOptions]):
        """Refuses what says so; is away once for what says so."""

        got: list = []
        seen: set = set()

        def consume(self, one):
            if one.title == "REFUSED!":
                raise PermanentError("no")
            if one.title == "AWAY!" and one.id not in self.seen:
                self.seen.add(one.id)
                raise TemporaryError("later")
            self.got.append(one)

    Picky.got, Picky.seen = [], set()
    run = engine(consumers=[consumer(Picky, render=SHOUT)])
    before = len(run.store.dead_letters(limit=1000))
    sent = [message(title=outcome, labels={} if outcome == "unwritable" else {"team": "t"}) for outcome in outcomes]
    run.send(*sent)
    run.work()
    for _ in range(6):
        run.later(hours=1)
    ends = {one.id: run.outcomes(one)["picky"] for one in sent}
    assert ends == {one.id: "buried" if one.title in ("unwritable", "refused") else "delivered" for one in sent}
    assert sorted(one.id for one in Picky.got) == sorted(one.id for one in sent if ends[one.id] == "delivered")
    assert len(run.store.dead_letters(limit=1000)) - before == sum(end == "buried" for end in ends.values())
