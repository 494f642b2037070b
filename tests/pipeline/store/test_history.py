"""Counting, explaining and forgetting what was decided, without reading all of it."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from pipeline.message import new_id
from pipeline.store import Outcome, Store, Why, history, migrate
from pipeline.store.rows import Lined
from pipeline.store.tables import to_number


def decide(store, make, count, *, at=None, **fields):
    records = [make.record(new_id(), Outcome.DELIVERED, at=at or make.now, **fields) for _ in range(count)]
    store.settle(records=records)
    return records


def remaining(store, records):
    return len(store.records("p", "s", [record.message_id for record in records]))


def test_what_a_message_became_comes_back_as_it_was_written(store, make):
    record = make.record(new_id(), Outcome.REPLACED, became=(new_id(), new_id()))
    store.settle(records=[record])
    assert store.history(record.message_id) == [record]


def test_the_histories_of_many_messages_in_a_pipeline_are_one_look(store, make):
    one, two, other, odd = new_id(), new_id(), new_id(), "half \ud800 and \0"
    records = [make.record(one, step="a"), make.record(one, Outcome.REPLACED, step="b", became=(two,)), make.record(two)]
    elsewhere = [make.record(one, pipeline="other"), make.record(other, pipeline="other")]
    store.settle(records=[*records, *elsewhere])
    found = store.histories("p", [one, two, other, odd, *(new_id() for _ in range(2500))])
    assert {message_id: sorted(rows, key=lambda record: record.step) for message_id, rows in found.items()} == {
        one: records[:2],
        two: records[2:],
    }
    assert store.histories("p", []) == {}


@pytest.mark.parametrize("outcome", [Outcome.DROPPED, Outcome.REPLACED, Outcome.PASSED])
def test_what_has_left_its_window_is_not_put_there_again(store, make, outcome):
    left, waits = make.message(), make.message()
    store.settle(records=[make.record(left.id, outcome)])
    store.settle(
        records=[make.record(left.id), make.record(waits.id)],
        held=[make.held(one, why=Why.WINDOW, key="k") for one in (left, waits)],
    )
    assert store.records("p", "s", [left.id])[left.id].outcome is outcome
    assert store.standings(left.id, [("p", "s")]) == []
    assert [one.held.message for one in store.standings(waits.id, [("p", "s"), ("p", "")])] == [waits]


def test_a_higher_attempt_waits_in_the_window_again(store, make):
    one = make.message()
    store.settle(records=[make.record(one.id, Outcome.REPLACED)])
    store.settle(records=[make.record(one.id, attempt=2)], held=[make.held(one, why=Why.WINDOW, key="k", attempt=2)])
    assert store.held_counts() == {("p", "s", Why.WINDOW): 1}


def test_a_retry_waits_whatever_its_record_says(store, make):
    one = make.message()
    store.settle(records=[make.record(one.id, Outcome.REPLACED)])
    store.settle(records=[make.record(one.id)], held=[make.held(one, why=Why.FILTER, attempt=2)])
    assert store.held_counts() == {("p", "s", Why.FILTER): 1}


def test_decisions_are_counted_over_all_hours_and_by_outcome(store, make):
    decide(store, make, 3)
    decide(store, make, 2, at=make.now + timedelta(hours=30))
    decide(store, make, 4, step="t", attempt=2)
    store.settle(records=[make.record(new_id())])
    assert store.counts() == {("p", "s", Outcome.DELIVERED): 5, ("p", "t", Outcome.DELIVERED): 4}
    assert store.counted_since() == make.now


def test_before_anything_is_decided_nothing_is_counted(store):
    assert store.counts() == {}
    assert store.counted_since() is None


def test_batches_settled_at_once_are_all_counted(store, make):
    threads = [threading.Thread(target=lambda: [decide(store, make, 5) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counts() == {("p", "s", Outcome.DELIVERED): 200}


def test_the_time_since_which_so_many_were_added(store, make):
    for hour in range(3):
        decide(store, make, 100, at=make.now + timedelta(hours=hour))
    decide(store, make, 50, at=make.now, attempt=2)  # changed records, added none
    now = make.now + timedelta(hours=2, minutes=30)
    assert store.oldest_within(300, now) is None
    assert store.oldest_within(200, now) == make.now + timedelta(hours=1)
    assert store.oldest_within(150, now) == make.now + timedelta(hours=1, minutes=30)
    assert store.oldest_within(50, now) == make.now + timedelta(hours=2, minutes=15)
    assert store.oldest_within(0, now) == now


def test_purging_forgets_the_hours_too_when_all_is_gone(store, make):
    for hour in range(3):
        decide(store, make, 10, at=make.now + timedelta(hours=hour))
    before = make.now + timedelta(hours=2)
    assert store.purge(before, 20) == 20
    assert store.counts() == {("p", "s", Outcome.DELIVERED): 30}, "there may be more"
    assert store.purge(before, 20) == 0
    assert store.counts() == {("p", "s", Outcome.DELIVERED): 10}
    assert store.counted_since() == before


def test_what_is_held_keeps_its_record_and_what_was_held_keeps_it_longer(store, make):
    held, retried, done = make.message(), make.message(), make.message()
    store.settle(
        records=[make.record(held.id), make.record(retried.id), make.record(done.id, Outcome.DELIVERED)], held=[make.held(held)]
    )
    later = make.now + timedelta(seconds=1)
    assert store.purge(later, 10, tried_before=make.now) == 1
    assert set(store.records("p", "s", [held.id, retried.id, done.id])) == {held.id, retried.id}
    assert store.purge(later, 10) == 1
    assert set(store.records("p", "s", [held.id, retried.id, done.id])) == {held.id}


def test_purges_at_once_neither_wait_nor_hinder_a_batch(store, make):
    old = decide(store, make, 300, at=make.now - timedelta(days=9))
    gone = []
    threads = [threading.Thread(target=lambda: [gone.append(store.purge(make.now, 20)) for _ in range(20)]) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: [store.settle(records=old[n::10]) for n in range(10)]))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (more := store.purge(make.now, 1000)) > 0:
        gone.append(more)
    assert sum(gone) >= 300
    assert remaining(store, old) == 0


def test_the_origins_of_a_message(store, make):
    digest = "019ca945-0a00-7fff-8000-000000000000"
    near, far = "019ca945-0a00-7000-8000-000000000000", "019ca945-ffff-7000-8000-000000000000"
    other = make.record("019ca945-0a00-7000-8000-000000000001", Outcome.REPLACED, became=(new_id(),))
    replaced = [make.record(one, Outcome.REPLACED, became=(digest,)) for one in (near, far)]
    store.settle(records=[*replaced, other, make.record(new_id(), Outcome.REPLACED, became=(new_id(),))])
    first, last = "019ca945-0a00-0000-0000-000000000000", "019ca945-0a00-ffff-ffff-ffffffffffff"
    assert store.origins(digest, first, last, limit=10) == replaced
    assert store.origins(digest, first, last, limit=1) == replaced[:1]
    assert store.origins(new_id(), first, last, limit=10) == []


def test_where_a_message_stands_in_line(store, make):
    messages = [make.message(key="db1") for _ in range(3)]
    other = make.message(key="db2")
    store.settle(lined=[Lined(message=one, pipeline="p", step="s", due=make.now) for one in [*messages, other]])
    found = [store.standings(one.id, [("p", "s"), ("p", "t")]) for one in [*messages, other]]
    assert [[(one.held.message, one.ahead, one.first) for one in standings] for standings in found] == [
        [(messages[0], 0, "")], [(messages[1], 1, messages[0].id)], [(messages[2], 2, messages[0].id)], [(other, 0, "")]
    ]  # fmt: skip
    assert found[0][0].held.why is Why.ORDER
    assert found[0][0].held.due == make.now


def test_what_stands_in_line_keeps_its_record(store, make):
    one = make.message(key="k")
    store.settle(records=[make.record(one.id, attempt=0)], lined=[Lined(message=one, pipeline="p", step="s", due=make.now)])
    assert store.purge(make.now + timedelta(days=1), 10) == 0


def test_a_store_of_before_is_counted_once_when_it_is_migrated(empty_url, make):
    store = Store(empty_url)
    database = store._database
    if database.file:
        migrate._prepare_file(database, database.file)
    config = Config()
    config.set_main_option("script_location", str(migrate._SCRIPTS))
    columns = "message_id, pipeline, step, outcome, at, attempt, reason"
    row = f"INSERT INTO records ({columns}) VALUES (:id, 'p', 's', :outcome, :at, 1, '')"
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for number, outcome in enumerate(["delivered", "delivered", "held"]):
            connection.execute(text(row), {"id": str(number), "outcome": outcome, "at": to_number(make.now) + number})
    store.migrate()
    assert store.counts() == {("p", "s", Outcome.DELIVERED): 2}
    assert store.counted_since() == make.now
    assert store.oldest_within(2, make.now + timedelta(hours=1)) is not None
    store.close()


def test_postgres_looks_records_up_one_by_one_whatever_it_knows_of_the_table(postgres_url, make):
    """With other forms of the question it read the whole table, again and again, until the first ANALYZE: 300 ms a batch."""
    store = Store(postgres_url)
    ids = [new_id() for _ in range(3000)]
    store.settle(records=[make.record(message_id) for message_id in ids])
    asked = {"message_ids": ids[:300], "pipeline": "p", "step": "s"}
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        question = history._records_at_step("postgresql").compile(dialect=connection.dialect)
        plan = connection.exec_driver_sql(f"EXPLAIN {question}", question.construct_params(asked) | {"message_ids": '["x"]'})
        steps = [line for (line,) in plan if "records" in line]
    engine.dispose()
    assert steps
    assert all("records_pk" in step for step in steps), steps
    assert len(store.records("p", "s", asked["message_ids"])) == 300
    store.close()
