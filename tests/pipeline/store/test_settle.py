"""What a batch decided is written once, whole, and never undone by its repeat."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.message import new_id
from pipeline.store import Outcome, Why
from pipeline.store.selection import Selection

LEASE = timedelta(seconds=30)


def claim(store, make, **by):
    return store.claim_due(make.now + timedelta(**by), owner="one", lease=LEASE, limit=100)


def test_a_record_comes_back_as_it_was_written(store, make):
    since = make.now - timedelta(hours=1, microseconds=1)
    record = make.record(new_id(), Outcome.HELD, attempt=3, since=since, reason="busy: ☂ 'quoted'")
    store.settle(records=[record])
    assert store.records("p", "s", [record.message_id, new_id()]) == {record.message_id: record}


def test_records_are_those_of_the_step_that_was_asked_for(store, make):
    message_id = new_id()
    store.settle(records=[make.record(message_id), make.record(message_id, step="t"), make.record(message_id, pipeline="q")])
    assert store.records("p", "t", [message_id]) == {message_id: make.record(message_id, step="t")}
    assert store.records("p", "u", [message_id]) == {}


def test_records_of_more_messages_than_fit_into_one_query(store, make):
    records = [make.record(new_id()) for _ in range(2500)]
    store.settle(records=records)
    assert store.records("p", "s", [record.message_id for record in records]) == {r.message_id: r for r in records}


def test_nothing_asked_gives_nothing(store):
    store.settle()
    assert store.records("p", "s", []) == {}


@pytest.mark.parametrize(
    ("first", "then", "wins"),
    [
        ((Outcome.HELD, 1), (Outcome.HELD, 2), "then"),
        ((Outcome.HELD, 1), (Outcome.DELIVERED, 1), "then"),
        ((Outcome.HELD, 2), (Outcome.DELIVERED, 2), "then"),
        ((Outcome.DELIVERED, 1), (Outcome.HELD, 2), "first"),
        ((Outcome.DELIVERED, 1), (Outcome.BURIED, 2), "first"),
        ((Outcome.HELD, 2), (Outcome.DELIVERED, 1), "then"),
        ((Outcome.HELD, 2), (Outcome.BURIED, 1), "first"),
        ((Outcome.BURIED, 2), (Outcome.DELIVERED, 1), "first"),
        ((Outcome.DELIVERED, 2), (Outcome.HELD, 1), "first"),
        ((Outcome.DELIVERED, 2), (Outcome.HELD, 2), "first"),
        ((Outcome.DELIVERED, 1), (Outcome.BURIED, 1), "first"),
        ((Outcome.BURIED, 1), (Outcome.DELIVERED, 1), "first"),
        ((Outcome.DROPPED, 1), (Outcome.DROPPED, 1), "then"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_record_never_goes_back(store, make, first, then, wins, together):
    message_id = new_id()
    records = {
        name: make.record(message_id, outcome, attempt=attempt, reason=name)
        for name, (outcome, attempt) in (("first", first), ("then", then))
    }
    for batch in [list(records.values())] if together else [[records["first"]], [records["then"]]]:
        store.settle(records=batch)
    assert store.records("p", "s", [message_id]) == {message_id: records[wins]}


def test_records_of_several_decisions_are_all_written_and_counted_once(store, make):
    """Those that share a decision go to the database together, between the others."""
    ids = [new_id() for _ in range(9)]
    kinds = [
        {"outcome": Outcome.DELIVERED},
        {"outcome": Outcome.BURIED, "reason": "no"},
        {"outcome": Outcome.DELIVERED, "attempt": 2},
    ]
    told = [make.record(message_id, **kinds[number // 2 % 3]) for number, message_id in enumerate(ids)]
    store.settle(records=[*reversed(told), told[0]])
    assert [store.history(message_id) for message_id in ids] == [[record] for record in told]
    assert store.counts() == {("p", "s", Outcome.DELIVERED): 6, ("p", "s", Outcome.BURIED): 3}


def test_history_is_in_order_of_time(store, make):
    message_id = new_id()
    steps = [
        make.record(message_id, step=step, at=make.now + timedelta(seconds=at)) for step, at in (("a", 2), ("b", 1), ("c", 3))
    ]
    store.settle(records=[*steps, make.record(new_id())])
    assert [record.step for record in store.history(message_id)] == ["b", "a", "c"]
    assert store.history(new_id()) == []


def test_a_batch_is_written_whole_or_not_at_all(store, make):
    good = make.message()
    bad = make.dead(make.message(), attempts="many" * 1000, at=None)
    with pytest.raises(TypeError):
        store.settle(records=[make.record(good.id)], held=[make.held(good)], dead=[bad])
    assert store.records("p", "s", [good.id]) == {}
    assert store.held_counts() == {}


def test_what_is_held_comes_back_as_it_was(store, make):
    message = make.message(text="nul \0 and ☂", labels={"a": "b"}, data={"deep": [1, 2.5, None, {"x": "\0"}]}, key="k")
    held = make.held(message, why=Why.FILTER, key="k", attempt=2, revision="r1", step="")
    store.settle(held=[held])
    assert [claim.held for claim in claim(store, make)] == [held]


@pytest.mark.parametrize("why", [Why.RETRY, Why.SPOOL, Why.FILTER])
def test_only_a_higher_attempt_replaces_what_is_held(store, make, why):
    message = make.message()
    two = make.held(message, why=why, attempt=2)
    store.settle(held=[two])
    store.settle(held=[make.held(message, why=why, attempt=1, due=make.now + LEASE)])
    store.settle(held=[make.held(message, why=why, attempt=2, due=make.now + LEASE)])
    assert store.next_due() == two.due
    three = make.held(message, why=why, attempt=3, due=make.now + timedelta(minutes=1))
    store.settle(held=[three])
    assert [claim.held for claim in claim(store, make, minutes=1)] == [three]


def test_a_window_keeps_its_first_row(store, make):
    message = make.message()
    first = make.held(message, why=Why.WINDOW, key="k")
    store.settle(held=[first])
    store.settle(held=[make.held(message, why=Why.WINDOW, key="k", due=make.now + LEASE, attempt=2)])
    assert [claim.held for claim in claim(store, make)] == [first]


def test_what_is_held_again_while_it_is_on_its_way_out_stays(store, make):
    """Its clock has published it, a worker was quick and could not deliver it, and only then does the clock let go."""
    message = make.message()
    store.settle(held=[make.held(message, attempt=1)])
    claims = claim(store, make)
    again = make.held(message, attempt=1, due=make.now + timedelta(seconds=5))
    store.settle(held=[again])
    store.release(claims)
    assert store.next_due() == again.due
    assert [claim.held for claim in claim(store, make, seconds=5)] == [again]


def test_a_claimed_row_of_a_higher_attempt_is_not_replaced(store, make):
    message = make.message()
    store.settle(held=[make.held(message, attempt=2)])
    claims = claim(store, make)
    store.settle(held=[make.held(message, attempt=1)])
    store.release(claims)
    assert store.held_counts() == {}


def test_what_is_released_may_be_held_again_at_once(store, make):
    held = make.held(why=Why.WINDOW, key="k")
    store.settle(held=[held])
    later = make.held(held.message, why=Why.WINDOW, key="k", due=make.now + LEASE)
    store.settle(held=[later], released=claim(store, make))
    assert [claim.held for claim in claim(store, make, seconds=30)] == [later]


def test_counts_are_those_of_the_records_and_of_what_waits_now(store, make):
    messages = [make.message() for _ in range(5)]
    outcomes = [Outcome.DELIVERED, Outcome.DELIVERED, Outcome.BURIED, Outcome.HELD, Outcome.HELD]
    store.settle(records=[make.record(m.id, outcome) for m, outcome in zip(messages, outcomes, strict=True)])
    store.settle(
        held=[make.held(messages[3]), make.held(step="t", why=Why.WINDOW), make.held(step="t", why=Why.FILTER)],
    )
    assert store.counts() == {
        ("p", "s", Outcome.DELIVERED): 2,
        ("p", "s", Outcome.BURIED): 1,
        ("p", "s", Outcome.HELD): 1,
        ("p", "t", Outcome.HELD): 2,
    }
    assert store.held_counts() == {("p", "s", Why.RETRY): 1, ("p", "t", Why.WINDOW): 1, ("p", "t", Why.FILTER): 1}


def test_purge_deletes_the_oldest_records_and_nothing_else(store, make):
    ages = {new_id(): age for age in (9, 8, 7, 1)}
    message = make.message()
    store.settle(
        records=[make.record(message_id, at=make.now - timedelta(days=age)) for message_id, age in ages.items()],
        held=[make.held(message, due=make.now - timedelta(days=99))],
        dead=[make.dead(message, at=make.now - timedelta(days=99))],
    )
    before = make.now - timedelta(days=6)
    assert store.purge(before, 2) == 2
    assert [ages[message_id] for message_id in store.records("p", "s", list(ages))] in ([7, 1], [1, 7])
    assert store.purge(before, 2) == 1
    assert store.purge(before, 2) == 0
    assert list(store.records("p", "s", list(ages))) == [list(ages)[3]]
    assert len(store.dead_letters()) == 1
    assert store.held_counts() == {("p", "s", Why.RETRY): 1}


def test_dead_letters_come_newest_first_page_by_page(store, make):
    letters = [make.dead(at=make.now - timedelta(minutes=minutes // 3)) for minutes in range(10)]
    store.settle(dead=letters)
    pages, before = [], None
    while page := store.dead_letters(limit=4, before=before):
        pages.append(page)
        before = page[-1].place
    assert [len(page) for page in pages] == [4, 4, 2]
    found = [letter for page in pages for letter in page]
    assert found == sorted(letters, key=lambda letter: (letter.at, letter.message.id), reverse=True)


def test_dead_letters_of_one_message_at_one_moment_do_not_fall_between_two_pages(store, make):
    message = make.message()
    store.settle(dead=[make.dead(message, step=step) for step in ("a", "b", "c")])
    (first,) = store.dead_letters(limit=1)
    assert [letter.step for letter in store.dead_letters(before=first.place)] == ["b", "a"]


@pytest.mark.parametrize("place", ["", "x", "2026-03-01/a", "no-time/a/b/c", "2026-03-01T12:00:00/a/b/c", "\0/a/b/c"])
def test_what_is_no_place_is_refused(store, place):
    with pytest.raises(ValueError, match="place"):
        store.dead_letters(before=place)


def test_dead_letters_by_pipeline_and_step(store, make):
    letters = [make.dead(pipeline=pipeline, step=step) for pipeline in "pq" for step in "st"]
    store.settle(dead=letters)
    assert store.dead_letters(Selection(pipeline="q", step="t")) == letters[3:]
    assert len(store.dead_letters(Selection(pipeline="p"))) == 2
    assert len(store.dead_letters(Selection(step="s"))) == 2
    assert store.count_dead() == {("p", "s"): 1, ("p", "t"): 1, ("q", "s"): 1, ("q", "t"): 1}


def test_the_dead_letters_of_a_message_and_a_later_one_in_place_of_an_earlier(store, make):
    message = make.message()
    first = make.dead(message, step="s", error="away", attempts=1)
    second = make.dead(message, step="t", error="oh", traceback="Traceback …", attempts=2, at=make.now + LEASE)
    store.settle(dead=[first, second, make.dead()])
    assert store.dead_letter(message.id) == [first, second]
    replaced = make.dead(message, step="s", error="still away", attempts=9, at=make.now + LEASE + LEASE)
    store.settle(dead=[replaced])
    assert store.dead_letter(message.id) == [second, replaced]
    assert store.dead_letter(new_id()) == []


def test_texts_that_no_database_holds_are_written_without_what_it_cannot_hold(store, make):
    message = make.message(key="k")
    store.settle(
        records=[make.record(message.id, reason="a\0b\ud800c")],
        held=[make.held(message, key="a\0b\ud800c" + "long" * 5000, why=Why.WINDOW)],
        dead=[make.dead(message, error="a\0b\ud800c", traceback="\0")],
    )
    store.set_cursor("p", "x", "\0")
    assert store.history(message.id)[0].reason == "a\ufffdb?c"
    assert claim(store, make)[0].held.key == "a\ufffdb?c" + "long" * 5000
    assert store.dead_letters()[0].error == "a\ufffdb?c"


def test_times_of_other_zones_are_the_same_moment(store, make):
    there = make.now.astimezone(tz=__import__("zoneinfo").ZoneInfo("Europe/Berlin"))
    record = make.record(new_id(), at=there)
    store.settle(records=[record])
    (found,) = store.history(record.message_id)
    assert found.at == make.now
    assert found.at.utcoffset() == timedelta(0)


def test_what_is_asked_for_by_a_name_that_no_database_holds_is_not_there(store):
    assert store.history("\0") == store.dead_letter("\ud800") == store.dead_letters(Selection(pipeline="\0", step="\0")) == []
