"""Accepted messages: the first of an id stays, they come back in their order, and they go by age and by number."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline import Message
from pipeline.store import Outcome
from pipeline.store.rows import Accepted, AcceptedSpan

HOUR = timedelta(hours=1)


@pytest.fixture
def keep(store, make):
    """Keeps messages of a pipeline, one for each of these ages in hours; gives their ids."""

    def keep(pipeline, *ages):
        kept = [Accepted(message=make.message(title=f"{age} h"), pipeline=pipeline, at=make.now - age * HOUR) for age in ages]
        for one in kept:
            store.settle(accepted=[one])
        return [one.message.id for one in kept]

    return keep


def ids(found):
    return [one.message.id for one in found]


def test_they_come_back_whole_and_in_the_order_of_their_times(store, make):
    messages = [make.message(title=title, data={"nul": "\0", "n": [1, 2.5, None]}) for title in ("third", "first", "second")]
    for message, age in zip(messages, (1, 3, 2), strict=True):
        store.settle(accepted=[Accepted(message=message, pipeline="p", at=make.now - age * HOUR)])
    found = list(store.accepted.between("p", newest=100))
    assert [one.message.title for one in found] == ["first", "second", "third"]
    assert [one.message for one in found] == [messages[1], messages[2], messages[0]]
    assert [one.at for one in found] == [make.now - age * HOUR for age in (3, 2, 1)]
    assert list(store.accepted.between("other", newest=100)) == []


def test_those_of_one_batch_keep_their_order_over_pages(store, make):
    messages = [make.message(title=str(number)) for number in range(1203)]
    store.settle(accepted=[Accepted(message=message, pipeline="p", at=make.now) for message in messages])
    assert ids(store.accepted.between("p", newest=5000)) == [message.id for message in messages]
    assert ids(store.accepted.between("p", newest=700)) == [message.id for message in messages[-700:]]


def test_of_one_that_comes_again_the_first_stays(store, make):
    message = make.message(title="first")
    store.settle(accepted=[Accepted(message=message, pipeline="p", at=make.now)])
    again = Accepted(message=message.replace(title="again"), pipeline="p", at=make.now + HOUR)
    store.settle(accepted=[again, again])
    store.settle(accepted=[Accepted(message=message, pipeline="other", at=make.now)])
    assert [(one.message.title, one.at) for one in store.accepted.between("p", newest=10)] == [("first", make.now)]
    assert ids(store.accepted.between("other", newest=10)) == [message.id]


def test_it_is_written_with_the_decisions_or_not_at_all(store, make):
    message = make.message()
    record = make.record(message.id, Outcome.DROPPED)
    store.settle(records=[record], accepted=[Accepted(message=message, pipeline="p", at=make.now)])
    assert ids(store.accepted.between("p", newest=10)) == [message.id] == [one.message_id for one in store.history(message.id)]
    broken = make.dead(make.message(), attempts=None)
    other = make.message()
    with pytest.raises(Exception, match="attempts"):
        store.settle(dead=[broken], accepted=[Accepted(message=other, pipeline="p", at=make.now)])
    assert ids(store.accepted.between("p", newest=10)) == [message.id]


def test_a_part_of_them(store, make, keep):
    first, second, third, fourth = keep("p", 4, 3, 2, 1)
    keep("other", 1)
    assert ids(store.accepted.between("p", since=make.now - 3 * HOUR, newest=10)) == [second, third, fourth]
    assert ids(store.accepted.between("p", until=make.now - 2 * HOUR, newest=10)) == [first, second]
    assert ids(store.accepted.between("p", since=make.now - 3 * HOUR, until=make.now - HOUR, newest=10)) == [second, third]
    assert ids(store.accepted.between("p", until=make.now - HOUR, newest=2)) == [second, third]
    assert store.accepted.span("p") == AcceptedSpan(4, make.now - 4 * HOUR, make.now - HOUR)
    assert store.accepted.span("p", since=make.now - 2 * HOUR, until=make.now - HOUR) == AcceptedSpan(
        1, make.now - 2 * HOUR, make.now - 2 * HOUR
    )
    assert store.accepted.span("p", since=make.now) is None


def test_they_go_by_age_each_pipeline_by_its_own(store, make, keep):
    _, short = keep("short", 3, 1)
    _, long = keep("long", 30, 3)
    keep("off", 1)
    keep("gone", 200)
    young = keep("gone", 100)
    keeps = {
        "short": (make.now - 2 * HOUR, 1000),
        "long": (make.now - 24 * HOUR, 1000),
        "off": (make.now, 0),
    }
    assert store.accepted.purge(keeps, make.now - 168 * HOUR, 10) == 1
    left = {name: ids(store.accepted.between(name, newest=10)) for name in ("short", "long", "off", "gone")}
    assert left == {"short": [short], "long": [long], "off": [], "gone": young}


def test_they_go_by_number_the_oldest_first_and_in_steps(store, make, keep):
    kept = keep("p", *range(10, 0, -1))
    others = keep("other", 1, 2)
    keeps = {"p": (make.now - 240 * HOUR, 3)}
    assert store.accepted.purge(keeps, make.now - 240 * HOUR, 4) == 4
    assert ids(store.accepted.between("p", newest=100)) == kept[4:]
    assert store.accepted.purge(keeps, make.now - 240 * HOUR, 4) == 3
    assert ids(store.accepted.between("p", newest=100)) == kept[7:]
    assert store.accepted.purge(keeps, make.now - 240 * HOUR, 4) == 0
    assert set(ids(store.accepted.between("other", newest=10))) == set(others)


def test_nothing_is_kept_and_nothing_to_purge(store, make):
    assert store.accepted.purge({"p": (make.now, 5)}, make.now, 10) == 0
    assert store.accepted.span("p") is None


def test_what_cannot_be_read_any_more_is_left_out(store, make, keep):
    from sqlalchemy import update

    from pipeline.store.tables import accepted

    bad, good = keep("p", 2, 1)
    with store._database.writing() as connection:
        connection.execute(update(accepted).where(accepted.c.message_id == bad).values(message='{"id": 5}'))
    assert ids(store.accepted.between("p", newest=10)) == [good]


def test_the_plan_of_a_read_and_of_a_purge_is_a_look_into_the_index(store, keep):
    if store.url.get_backend_name() != "sqlite":
        return
    from sqlalchemy import text

    keep("p", 2, 1)
    queries = {
        "SELECT * FROM accepted WHERE pipeline = 'p' AND at >= 1 AND (at, id) > (1, 1) ORDER BY at, id": "accepted_order",
        "SELECT at, id FROM accepted WHERE pipeline = 'p' ORDER BY at DESC, id DESC LIMIT 1": "COVERING INDEX accepted_order",
        "SELECT min(pipeline) FROM accepted WHERE pipeline > 'a'": "SEARCH accepted",
    }
    with store._database.reading() as connection:
        for query, expected in queries.items():
            plan = " ".join(str(row) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
            assert expected in plan, plan
            assert "TEMP B-TREE" not in plan, plan


def test_a_message_is_read_as_it_was_with_all_its_fields(store, make):
    whole = Message(
        source="s", type="alert", time=make.now, title="t", text="x\ny", severity="critical", status="resolved",
        labels={"a": "b"}, key="k", url="https://example.com", data={"deep": {"er": ["ä"]}},
    )  # fmt: skip
    store.settle(accepted=[Accepted(message=whole, pipeline="p", at=make.now)])
    assert [one.message for one in store.accepted.between("p", newest=1)] == [whole]
