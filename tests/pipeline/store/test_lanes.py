"""Lanes: only the first messages of a lane are given out, to one at a time, and nothing overtakes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text

from pipeline.store import Outcome, Why
from pipeline.store.rows import LaneBack, LanesLostError, Lined, Worked
from pipeline.store.tables import metadata

LEASE = timedelta(seconds=10)


@pytest.fixture
def line(store, make):
    def line_up(*titles: str, key: str = "k", step: str = "s", **fields):
        messages = [make.message(title=title, key=key) for title in titles]
        store.settle(lined=[Lined(message=m, pipeline="p", step=step, due=make.now, **fields) for m in messages])
        return messages

    return line_up


@pytest.fixture
def claim(store, make):
    def claim(token: str, limit: int = 100, size: int = 10_000, **by: float):
        return store.lanes.claim(token, now=make.now + timedelta(**by), lease=LEASE, limit=limit, size=size)

    return claim


@pytest.fixture
def begin(store, make):
    def begin(messages, token: str = "a", worker: str = "w", step: str = "s", **by: float):
        now = make.now + timedelta(**by)
        ids = [message.id for message in messages]
        return store.lanes.begin(("p", step), ids, token=token, worker=worker, now=now, until=now + LEASE)

    return begin


@pytest.fixture
def finish(store, make):
    def finish(rows, worker: str = "w", *, done=None, back=(), strict=False, **by: float):
        now = make.now + timedelta(**by)
        done = rows if done is None else done
        lanes = list({row.lane for row in rows})
        store.settle(worked=Worked(worker=worker, lanes=lanes, now=now, done=done, back=back, strict=strict))

    return finish


def titles(claim):
    return None if claim is None else [message.title for message in claim.messages]


def test_a_worker_is_taken_for_dead_only_by_those_who_may_judge(line, claim, begin, store, make):
    messages = line("1", "2")
    line("x", key="other")
    begin(claim("a", limit=2).messages[:1])
    later = make.now + timedelta(seconds=30)
    left = store.lanes.claim("b", now=later, lease=LEASE, limit=9, size=10_000, take_over=False)
    assert titles(left) == ["x"]
    assert store.lanes.claim("c", now=later, lease=LEASE, limit=9, size=10_000, take_over=False) is None
    assert titles(claim("d", seconds=30)) == [messages[0].title]


def test_a_lane_whose_claimed_messages_were_settled_late_by_the_worker_before_is_free_when_the_batch_comes(
    line, claim, begin, finish
):
    messages = line("1", "2", "3")
    claim("a", limit=2)
    rows = begin(messages[:2], token="a", worker="late")
    second = claim("b", limit=2, seconds=11)  # the late one could not renew: the store was away
    assert titles(second) == ["1"]
    finish(rows, worker="late", seconds=12)
    assert begin(second.messages, token="b", worker="next", seconds=13) == []
    assert titles(claim("c", seconds=13)) == ["3"]


def test_a_claimed_lane_gives_nothing_more_until_its_work_is_settled(line, claim, begin, finish, store):
    line("1", "2")
    first = claim("a")
    line("3")
    assert (titles(first), first.pipeline, first.step) == (["1", "2"], "p", "s")
    assert claim("b", seconds=9) is None
    rows = begin(first.messages)
    assert [row.message_id for row in rows] == [message.id for message in first.messages]
    assert claim("b", seconds=9) is None
    finish(rows)
    assert titles(claim("b")) == ["3"]
    assert store.held_counts() == {("p", "s", Why.ORDER): 1}
    assert store.counts() == {("p", "s", Outcome.HELD): 1}


def test_keys_have_lanes_of_their_own_and_share_a_batch(line, claim):
    line("1", "2", key="x")
    line("1", "2", "3", key="y")
    line("1", key="z", step="t")
    assert sorted(titles(claim("a"))) == ["1", "1", "2", "2", "3"]
    assert titles(claim("b")) == ["1"]


def test_the_more_lanes_the_fewer_of_each(line, claim):
    for key in "wxyz":
        line("1", "2", "3", key=key)
    assert sorted(titles(claim("a", limit=8))) == ["1", "1", "1", "1", "2", "2", "2", "2"]


def test_size_ends_a_batch_but_one_message_always_goes(line, claim, begin, finish):
    line("1" * 500, "2" * 500, "3" * 500)
    first = claim("a", size=1500)
    assert len(first.messages) == 2
    finish(begin(first.messages))
    assert len(claim("b", size=10).messages) == 1


def test_another_revision_is_another_batch(line, claim, begin, finish):
    line("1", revision="r1")
    line("2", revision="r2")
    first = claim("a")
    assert (titles(first), first.revision) == (["1"], "r1")
    finish(begin(first.messages))
    assert claim("b").revision == "r2"


def test_a_message_that_stands_there_is_not_put_there_again(store, make, line, claim):
    one, _ = line("1", "2")
    store.settle(lined=[Lined(message=one.replace(key="other"), pipeline="p", step="s", due=make.now)])
    assert titles(claim("a")) == ["1", "2"]
    assert claim("b") is None
    assert claim("c", seconds=5) is None, "the empty lane is gone"


def test_what_waits_for_another_attempt_holds_back_its_key_only(line, claim, begin, finish, make):
    line("1", "2", key="x")
    first = claim("a")
    rows = begin(first.messages)
    again = rows[0].__class__(rows[0].row, rows[0].lane, rows[0].message_id, 2, 0)
    finish(rows, done=[], back=[LaneBack(again, make.now + timedelta(seconds=30))])
    line("3", key="x")
    line("1", key="y")
    other = claim("b", seconds=29)
    assert [message.key for message in other.messages] == ["y"]
    assert not begin(first.messages, seconds=29), "the batch came twice"
    later = claim("c", seconds=30)
    assert titles(later) == ["1", "2", "3"]
    assert [row.attempt for row in begin(later.messages, "c", seconds=30)] == [2, 1, 1]


def test_a_batch_that_comes_twice_is_worked_on_once(line, claim, begin, finish):
    line("1", "2")
    first = claim("a")
    rows = begin(first.messages)
    assert not begin(first.messages, worker="w2")
    finish(rows)
    assert not begin(first.messages, worker="w2")


def test_a_batch_that_waited_long_begins_unless_another_has(line, claim, begin, finish):
    line("1", "2")
    old = claim("a")
    line("3")
    new = claim("b", seconds=11)
    assert titles(new) == ["1", "2", "3"]
    finish(begin(old.messages, "a", seconds=12), seconds=12)
    (rest,) = begin(new.messages, "b", "w2", seconds=12)
    assert rest.message_id == new.messages[2].id, "the first two are done"


def test_nothing_overtakes_what_an_old_batch_lacks(line, claim, begin):
    line("1", "2")
    old = claim("a")
    assert not begin(old.messages[1:])
    assert len(begin(old.messages[:1])) == 1


def test_a_claim_can_be_given_back_and_prolonged(store, make, line, claim, begin):
    line("1")
    claim("a")
    store.lanes.give_back("a", make.now)
    second = claim("b")
    store.lanes.sent("b", make.now + timedelta(minutes=15))
    assert claim("c", minutes=14) is None
    begin(second.messages, "b")
    store.lanes.sent("b", make.now + timedelta(minutes=99))
    store.lanes.give_back("b", make.now)
    assert claim("d", seconds=9) is None, "a worker's lane is the worker's"
    store.lanes.renew("b", "other", make.now + timedelta(minutes=1))
    store.lanes.renew("b", "w", make.now + timedelta(seconds=20))
    assert claim("d", seconds=19) is None
    assert claim("d", seconds=20) is not None


def test_after_a_death_messages_come_one_by_one_until_those_are_done(store, make, line, claim, begin, finish):
    line("1", "2", key="x")
    line("1", key="y")
    first = claim("a")
    begin(first.messages)
    line("3", "4", key="x")
    store.lanes.died("a", make.now)
    ones = [claim("b"), claim("c")]
    assert [titles(one) for one in ones] == [["1"], ["1"]]
    assert not begin(first.messages, "a", "late"), "the batch that killed comes again"
    x = next(one for one in ones if one.messages[0].key == "x")
    (row,) = begin(x.messages, x.token)
    assert row.deaths == 1
    store.lanes.died(x.token, make.now)
    (row,) = begin(claim("d").messages, "d")
    assert row.deaths == 2
    finish([row])
    two = claim("e")
    assert titles(two) == ["2"]
    (row,) = begin(two.messages, "e")
    assert row.deaths == 0
    finish([row])
    assert titles(claim("f")) == ["3", "4"]


def test_a_lease_that_ends_at_work_counts_as_a_death(line, claim, begin):
    line("1", "2")
    begin(claim("a").messages)
    alone = claim("b", seconds=11)
    assert titles(alone) == ["1"]
    assert [row.deaths for row in begin(alone.messages, "b", seconds=11)] == [1]


def test_a_worker_that_lost_its_lanes_writes_nothing_where_it_must_not(store, make, line, claim, begin, finish):
    line("1", "2")
    rows = begin(claim("a").messages)
    (second,) = begin(claim("b", seconds=11).messages, "b", "w2", seconds=11)
    with pytest.raises(LanesLostError):
        finish(rows, strict=True)
    assert store.held_counts() == {("p", "s", Why.ORDER): 2}
    finish(rows)
    assert store.held_counts() == {}, "what was delivered leaves, whoever did it"
    assert claim("c", seconds=12) is None, "and the lane stays with who has it"
    finish([second], "w2")
    line("3")
    assert titles(claim("d")) == ["3"]


def test_what_cannot_be_read_is_buried_and_hinders_no_other(store, make, line, claim):
    one, _ = line("1", "2")
    engine = create_engine(store.url)
    with engine.begin() as connection:
        table = metadata.tables["lane_messages"]
        connection.execute(table.update().where(table.c.message_id == one.id).values(message="{"))
    engine.dispose()
    assert titles(claim("a")) == ["2"]
    (letter,) = store.dead_letter(one.id)
    assert "cannot be read" in letter.error


def test_many_line_up_and_claim_at_once_and_every_lane_stays_in_order(store, make):
    """Threads write their numbers into shared lanes while others take them off; nothing is lost, doubled or overtaken."""
    keys, each = [f"k{n}" for n in range(4)], 15
    seen: dict[str, list[str]] = {key: [] for key in keys}
    now = make.now

    def send(key: str) -> None:
        for n in range(each):
            store.settle(lined=[Lined(message=make.message(title=str(n), key=key), pipeline="p", step="s", due=now)])

    def take(name: str) -> None:
        for turn in range(400):
            if sum(map(len, seen.values())) == each * len(keys):
                return
            token = f"{name}{turn}"
            found = store.lanes.claim(token, now=now, lease=LEASE, limit=10, size=10_000)
            if found is None:
                continue
            ids = [message.id for message in found.messages]
            by_id = {message.id: message for message in found.messages}
            rows = store.lanes.begin(("p", "s"), ids, token=token, worker=token, now=now, until=now + LEASE)
            for row in rows:
                seen[by_id[row.message_id].key].append(by_id[row.message_id].title)
            store.settle(worked=Worked(worker=token, lanes=list({row.lane for row in rows}), now=now, done=rows, strict=True))

    with ThreadPoolExecutor(6) as pool:
        for work in [*(pool.submit(send, key) for key in keys), *(pool.submit(take, name) for name in "xy")]:
            work.result()
    take("last")
    assert seen == {key: [str(n) for n in range(each)] for key in keys}
    engine = create_engine(store.url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM lanes")).scalar() == 0
    engine.dispose()
