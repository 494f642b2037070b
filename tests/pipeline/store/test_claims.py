"""What is due is claimed by one clock, whole windows at a time, and comes back when that clock died."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import text

from pipeline.message import new_id
from pipeline.store import Why
from pipeline.store.rows import Turn

LEASE = timedelta(seconds=30)


def claim(store, make, owner="one", limit=100, **by):
    return store.claim_due(make.now + timedelta(**by), owner=owner, lease=LEASE, limit=limit)


def due(make, *seconds, **fields):
    return [make.held(due=make.now + timedelta(seconds=second), **fields) for second in seconds]


def test_only_what_is_due_is_claimed_in_order_of_due_time(store, make):
    rows = due(make, 3, 1, 2, 9)
    store.settle(held=rows)
    assert claim(store, make) == []
    assert store.next_due() == make.now + timedelta(seconds=1)
    assert [claim.held for claim in claim(store, make, seconds=3)] == [rows[1], rows[2], rows[0]]
    assert store.next_due() == make.now + timedelta(seconds=9)


def test_nothing_held(store, make):
    assert store.next_due() is None
    assert claim(store, make) == []


def test_no_more_than_the_limit(store, make):
    store.settle(held=due(make, 3, 1, 2))
    first = claim(store, make, limit=2, seconds=5)
    assert [claim.held.due for claim in first] == [make.now + timedelta(seconds=second) for second in (1, 2)]
    assert len(claim(store, make, limit=2, seconds=5)) == 1


def test_more_than_fit_into_one_query(store, make):
    store.settle(held=due(make, *([0] * 2500)))
    claims = claim(store, make, limit=5000)
    assert len(claims) == 2500
    store.release(claims)
    assert store.next_due() is None


def test_a_claim_is_one_owners_until_its_lease_ends(store, make):
    store.settle(held=due(make, 0))
    first = claim(store, make, "one")
    assert claim(store, make, "two") == []
    assert claim(store, make, "two", seconds=29.999) == []
    assert store.next_due() == make.now + LEASE
    second = claim(store, make, "two", seconds=30)
    assert [claim.held for claim in second] == [claim.held for claim in first]
    store.release(first)
    assert store.held_counts() == {("p", "s", Why.RETRY): 1}
    store.release(second)
    assert store.held_counts() == {}


def test_claims_of_several_owners_are_released_together(store, make):
    store.settle(held=due(make, 0, 0, 0))
    store.release([*claim(store, make, "one", limit=1), *claim(store, make, "two", limit=1)])
    assert store.held_counts() == {("p", "s", Why.RETRY): 1}


def test_what_is_given_back_is_due_at_once(store, make):
    store.settle(held=due(make, -5))
    first = claim(store, make, "one")
    store.give_back(first)
    assert store.next_due() == make.now - timedelta(seconds=5)
    second = claim(store, make, "two")
    assert len(second) == 1
    store.give_back(first)
    assert claim(store, make, "three") == []


def test_a_window_comes_whole_oldest_first_when_its_first_message_is_due(store, make):
    messages = [make.message(id=new_id()) for _ in range(4)]
    window = [
        make.held(message, why=Why.WINDOW, key="k", due=make.now + timedelta(seconds=second))
        for message, second in zip(messages, (5, 1, 9, 7), strict=True)
    ]
    others = [
        *due(make, 4, why=Why.WINDOW, key="other"),
        *due(make, 6, why=Why.WINDOW, key="k", step="t"),
        *due(make, 6, why=Why.WINDOW, key="k", pipeline="q"),
        *due(make, 0, 6, key="k"),
    ]
    store.settle(held=[window[2], window[0]])
    store.settle(held=[*others, window[3], window[1]])
    assert [claim.held for claim in claim(store, make, seconds=1)] == [others[3], *window]
    assert [claim.held for claim in claim(store, make, seconds=4)] == [others[0]]


def test_a_window_comes_whole_even_beyond_the_limit(store, make):
    store.settle(held=due(make, 0, *range(1, 2400), why=Why.WINDOW, key="k"))
    assert len(claim(store, make, limit=1)) == 2400


def test_what_a_dead_owner_had_of_a_window_comes_with_the_rest(store, make):
    store.settle(held=due(make, 0, 1, why=Why.WINDOW, key="k"))
    assert len(claim(store, make, "one")) == 2
    store.settle(held=due(make, 90, why=Why.WINDOW, key="k"))
    assert claim(store, make, "two", seconds=29) == []
    assert len(claim(store, make, "two", seconds=30)) == 3


@pytest.mark.parametrize("who", ["one", "two"])
def test_what_comes_to_a_window_that_is_claimed_waits_until_that_is_let_go(store, make, who):
    """What its owner is about to keep for the key is not there yet."""
    store.settle(held=due(make, 0, why=Why.WINDOW, key="k"))
    first = claim(store, make)
    later, other = due(make, 5, why=Why.WINDOW, key="k"), due(make, 5, why=Why.WINDOW, key="other")
    store.settle(held=[*later, *other])
    assert [one.held for one in claim(store, make, who, seconds=5)] == other
    kept = due(make, 60, why=Why.KEPT, key="k")
    assert store.turn([Turn(first, kept)]) == []
    assert {one.held.message.id for one in claim(store, make, who, seconds=5)} == {one.message.id for one in [*later, *kept]}


def test_what_comes_to_a_window_whose_owner_died_comes_with_it(store, make):
    first, second = due(make, 0, 5, why=Why.WINDOW, key="k")
    store.settle(held=[first])
    lost = claim(store, make)
    store.settle(held=[second])
    assert claim(store, make, "two", seconds=29) == []
    assert len(claim(store, make, "two", seconds=30)) == 2
    kept = due(make, 60, why=Why.KEPT, key="k")
    assert store.turn([Turn(lost, kept)]) == [Turn(lost, kept)]


def test_of_several_turns_those_are_done_whose_claims_are_all_their_owners(store, make):
    store.settle(held=[*due(make, 0, 0, why=Why.WINDOW, key="lost"), *due(make, 0, 0, why=Why.WINDOW, key="own")])
    claims = claim(store, make)
    windows = [[one for one in claims if one.held.key == key] for key in ("lost", "own")]
    store.release(windows[0][:1])
    turns = [Turn(window, due(make, 60, why=Why.KEPT, key=window[0].held.key)) for window in windows]
    assert store.turn(turns) == turns[:1]
    assert store.held_counts() == {("p", "s", Why.WINDOW): 1}, "what was not done is as it was"
    assert [one.held for one in claim(store, make, "two", seconds=90)][1:] == list(turns[1].held)


def test_a_lease_that_is_renewed_lasts_longer_for_its_owner_alone(store, make):
    store.settle(held=due(make, 0, 0))
    first = claim(store, make)
    store.renew(first, make.now + 3 * LEASE)
    assert claim(store, make, "two", seconds=89) == []
    second = claim(store, make, "two", seconds=90)
    assert len(second) == 2
    store.renew(first, make.now + 9 * LEASE)
    assert store.next_due() == make.now + 4 * LEASE


def test_a_tick_over_rows_that_are_not_due_reads_an_index(store, make):
    store.settle(held=due(make, *range(1, 500)))
    with store._database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("ANALYZE held"))
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
        for query in ("SELECT min(ready) FROM held", "SELECT * FROM held WHERE ready <= 5 ORDER BY ready LIMIT 10"):
            assert "held_ready" in str(connection.execute(text(f"{plan} {query}")).all())
        window = text(f"{plan} SELECT * FROM held WHERE window_id IN ('a', 'b')")
        assert "held_window" in str(connection.execute(window).all())


CLAIM_ALL = """
import json
rows = []
while claims := store.claim_due(now, owner=sys.argv[3], lease=timedelta(seconds=30), limit=50):
    rows.append([claim.held.message.id for claim in claims])
print(json.dumps(rows))
store.close()
"""


def test_two_processes_claim_each_row_once_and_no_window_by_halves(store, make, url, spawned):
    rows = due(make, *([0] * 4000))
    for window in range(100):
        rows += due(make, *range(-9, 1), why=Why.WINDOW, key=str(window))
    store.settle(held=rows)
    arguments = (url, make.now.isoformat())
    with spawned(CLAIM_ALL, *arguments, "one") as one, spawned(CLAIM_ALL, *arguments, "two") as two:
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        batches = [batch for process in (one, two) for batch in json.loads(process.stdout.readline())]
    times = Counter(message_id for batch in batches for message_id in batch)
    assert set(times.values()) == {1}
    assert len(times) == 5000
    key = {row.message.id: row.key for row in rows if row.why is Why.WINDOW}
    windows = [{key[message_id] for message_id in batch if message_id in key} for batch in batches]
    assert sum(len(window) for window in windows) == 100


KILLED = """
claims = store.claim_due(now, owner="killed", lease=timedelta(seconds=30), limit=100)
print(len(claims), flush=True)
sys.stdin.readline()
"""


def test_what_a_killed_clock_claimed_comes_back_after_its_lease(store, make, url, spawned):
    store.settle(held=due(make, *([0] * 10)))
    with spawned(KILLED, url, make.now.isoformat()) as process:
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "10\n"
        process.kill()
        process.wait()
    assert claim(store, make, seconds=29) == []
    assert len(claim(store, make, seconds=30)) == 10


@pytest.mark.parametrize("unreadable", ['{"id": 1}', '{"data": ' + "[" * 2000 + "]" * 2000 + "}"])
def test_what_cannot_be_read_any_more_is_buried_and_hinders_nothing(store, make, unreadable):
    first, bad, last = due(make, 0, 1, 2)
    store.settle(held=[first, bad, last])
    with store._database.writing() as connection:
        changed = {"id": bad.message.id, "message": unreadable}
        connection.execute(text("update held set message = :message where message_id = :id"), changed)
    assert [claim.held for claim in claim(store, make, seconds=5)] == [first, last]
    (letter,) = store.dead_letter(bad.message.id)
    assert letter.error.startswith("what was held cannot be read: ")
    assert (letter.pipeline, letter.step, letter.message.data) == (bad.pipeline, bad.step, unreadable)
    assert [record.outcome for record in store.history(bad.message.id)] == ["buried"]
    assert sum(store.held_counts().values()) == 2
