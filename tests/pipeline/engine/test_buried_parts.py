"""What a filter buries of a message: the rest goes on, the part has its reason and its own id, and comes back to that filter."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filters.receivers import Receivers
from filters.receivers.options import ReceiversConfig
from pipeline import Buried, Consumer, Filter, Message, NoOptions, Request
from pipeline.engine.dryrun import dry_run
from pipeline.engine.redrive import Redrive
from pipeline.message import derived_id
from pipeline.store.selection import Selection
from producers.http import Http, HttpConfig


class Apart(Filter[NoOptions]):
    """Gives a part for each letter of the title; buries those in lower case, until they are called fine."""

    fine: str = ""

    def filter(self, message):
        for letter in message.title:
            part = message.replace(title=letter)
            yield part if letter.isupper() or letter in type(self).fine else Buried(part, f"'{letter}' is small")


class Box(Consumer[NoOptions]):
    """Keeps what it gets."""

    got: list

    def consume(self, message):
        type(self).got.append(message)


@pytest.fixture
def box():
    return type("Box", (Box,), {"got": []})


@pytest.fixture
def apart():
    return type("Apart", (Apart,), {"fine": ""})


def test_the_rest_goes_on_and_the_part_is_buried_with_its_reason(engine, filter_step, consumer, apart, box, message):
    run = engine(filters=[filter_step(apart)], consumers=[consumer(box)])
    one = message(title="AbC")
    run.send(one)
    run.work()
    assert [m.title for m in box.got] == ["A", "C"]
    (letter,) = run.store.dead_letters()
    assert (letter.step, letter.error, letter.message.title) == ("apart", "'b' is small", "b")
    assert letter.message.id == derived_id(one.id, "apart", 1)
    (whole,) = run.store.history(one.id)
    assert (whole.outcome, whole.became[1]) == ("replaced", letter.message.id)


def test_it_comes_back_to_the_filter_that_buried_it_and_nobody_gets_the_rest_again(
    engine, filter_step, consumer, apart, box, message
):
    run = engine(filters=[filter_step(apart)], consumers=[consumer(box)])
    run.send(message(title="AbC"))
    run.work()
    apart.fine = "b"
    run.moment[0] += timedelta(seconds=1)
    [*Redrive(run.runner.pipelines, run.store, now=lambda: run.moment[0]).run(Selection())]
    run.later(seconds=1)
    assert [m.title for m in box.got] == ["A", "C", "b"]
    assert run.store.dead_letters() == []


def test_where_no_part_goes_on_the_message_is_buried_as_it_is(engine, filter_step, consumer, apart, box, message):
    run = engine(filters=[filter_step(apart)], consumers=[consumer(box)])
    one = message(title="ab")
    run.send(one)
    run.work()
    (letter,) = run.store.dead_letters()
    assert (letter.message, letter.error) == (one, "'a' is small; 'b' is small")
    assert box.got == []


def test_a_batch_that_comes_twice_buries_the_same_part_once(engine, filter_step, consumer, apart, box, message):
    run = engine(filters=[filter_step(apart)], consumers=[consumer(box)])
    run.send(message(title="AbC"))
    (batch,) = run.queue.take()
    run.runner.run(batch)
    run.runner.run(batch)
    run.work()
    assert len(run.store.dead_letters()) == 1
    assert [m.title for m in box.got] == ["A", "C"]


def test_a_dry_run_tells_it_of_the_part(spec, producer, filter_step, consumer, apart, box):
    toy = spec([producer(Http, config=HttpConfig())], [filter_step(apart)], [consumer(box)])
    trace = dry_run(toy, toy.producers[0], Request(b'{"title": "Ab"}', {"content-type": "application/json"}), now=_NOW)
    (visit,) = trace.journeys[0].visits
    assert (visit.did, [part.message.title for part in visit.parts]) == ("split", ["A", "b"])
    fine, buried = visit.parts
    assert [delivery.did for delivery in fine.deliveries] == ["would send"]
    assert [(one.did, one.reason) for one in buried.visits] == [("failed", "'b' is small")]
    assert (buried.deliveries, trace.failed) == ((), True)


_NOW = Message(source="t").time
USERS = {"ann": {"chat": "1"}, "bob": {"chat": "2"}, "carl": {"chat": "3"}}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(named=st.lists(st.lists(st.sampled_from(["ann", "bob", "carl", "dora", "emil"]), max_size=5), min_size=1, max_size=5))
def test_every_name_of_every_message_is_a_delivery_or_stands_in_a_dead_letter(engine, filter_step, consumer, message, named):
    got = []

    class Chat(Consumer[NoOptions]):
        """Keeps what it gets."""

        def consume(self, one):
            got.append(one)

    config = ReceiversConfig(users=USERS, to="labels.by")
    run = engine(filters=[filter_step(Receivers, config=config)], consumers=[consumer(Chat)])
    before = {letter.message.id for letter in run.store.dead_letters(limit=1000)}
    sent = [message(labels={"by": ",".join(names), "number": str(number)}) for number, names in enumerate(named)]
    run.send(*sent)
    run.work()
    letters = [letter for letter in run.store.dead_letters(limit=1000) if letter.message.id not in before]
    for number, names in enumerate(named):
        mine = [one.labels["receiver"] for one in got if one.labels["number"] == str(number)]
        assert sorted(mine) == sorted({*names} & USERS.keys())
        told = [letter.error for letter in letters if letter.message.labels["number"] == str(number)]
        unknown = {*names} - USERS.keys()
        assert len(told) == bool(unknown or not names)
        assert all(f"'{name}'" in told[0] for name in unknown)


def test_the_parts_that_go_on_keep_their_order(engine, filter_step, consumer, apart, box, message):
    run = engine(filters=[filter_step(apart)], consumers=[consumer(box, ordered=True)])
    run.send(message(title="AbC", key="k"), message(title="xDE", key="k"), message(title="F", key="k"))
    for _ in range(30):
        run.later(seconds=30)
    assert [m.title for m in box.got] == ["A", "C", "D", "E", "F"]
    assert sorted(letter.message.title for letter in run.store.dead_letters()) == ["b", "x"]
