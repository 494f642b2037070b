"""One clock of many runs an occurrence, and a dead one's is taken over. And cursors and keys, which are as plain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from pipeline.errors import ConfigError
from pipeline.store import ApiKey

LEASE = timedelta(minutes=1)


def claim(store, make, occurrence, owner="one", **by):
    return store.claim_occurrence("p", "x", at(make, occurrence), owner, LEASE, now=make.now + timedelta(**by))


def at(make, minutes):
    return make.now + timedelta(minutes=minutes)


def test_an_occurrence_is_one_owners(store, make):
    assert claim(store, make, 0, "one")
    assert not claim(store, make, 0, "two")
    assert not claim(store, make, 0, "one")
    assert store.last_occurrence("p", "x") is None
    assert store.finish_occurrence("p", "x", at(make, 0), "one")
    assert store.last_occurrence("p", "x") == make.now
    assert not claim(store, make, 0, "two")
    assert claim(store, make, 1, "two")
    assert store.last_occurrence("p", "x") == make.now


@pytest.mark.parametrize("finished", [True, False])
def test_what_was_claimed_while_the_clock_was_wrong_holds_up_nothing(store, make, finished):
    assert claim(store, make, 60 * 24 * 365, "wrong", days=365)
    if finished:
        assert store.finish_occurrence("p", "x", at(make, 60 * 24 * 365), "wrong")
    assert claim(store, make, 0, "right")
    assert not claim(store, make, 0, "another")
    assert store.finish_occurrence("p", "x", at(make, 0), "right")
    assert store.last_occurrence("p", "x") == make.now


def test_a_later_occurrence_waits_while_the_one_before_is_run(store, make):
    assert claim(store, make, 0, "one")
    assert not claim(store, make, 1, "two", seconds=59)
    assert claim(store, make, 1, "two", seconds=60)


def test_a_dead_owners_occurrence_is_taken_over_after_its_lease(store, make):
    assert claim(store, make, 0, "one")
    assert not claim(store, make, 0, "two", seconds=59)
    assert claim(store, make, 0, "two", seconds=60)
    assert not store.finish_occurrence("p", "x", at(make, 0), "one")
    assert store.finish_occurrence("p", "x", at(make, 0), "two")


def test_an_owner_that_is_at_it_keeps_it(store, make):
    assert claim(store, make, 0, "one")
    assert store.renew_occurrence("p", "x", "one", LEASE, now=make.now + timedelta(seconds=50))
    assert not claim(store, make, 0, "two", seconds=109)
    assert claim(store, make, 0, "two", seconds=110)
    assert not store.renew_occurrence("p", "x", "one", LEASE, now=make.now + timedelta(seconds=111))


def test_an_earlier_occurrence_is_never_run_again(store, make):
    assert claim(store, make, 5)
    assert not claim(store, make, 4, minutes=5)
    assert store.finish_occurrence("p", "x", at(make, 5), "one")
    assert not claim(store, make, 4, minutes=9)


def test_schedules_do_not_know_one_another(store, make):
    assert claim(store, make, 0)
    assert store.claim_occurrence("p", "y", make.now, "two", LEASE)
    assert store.claim_occurrence("q", "x", make.now, "two", LEASE)
    assert store.last_occurrence("q", "y") is None


def test_of_many_threads_one_runs_an_occurrence(store, make):
    with ThreadPoolExecutor(8) as pool:
        for occurrence in range(10):
            won = list(pool.map(lambda owner, minute=occurrence: claim(store, make, minute, str(owner)), range(8)))
            assert won.count(True) == 1
            assert store.finish_occurrence("p", "x", at(make, occurrence), str(won.index(True)))


def test_a_cursor_is_the_last_one_set(store):
    assert store.cursor("p", "x") is None
    store.set_cursor("p", "x", "1")
    store.set_cursor("p", "x", "2")
    store.set_cursor("p", "y", "3")
    assert (store.cursor("p", "x"), store.cursor("p", "y"), store.cursor("q", "x")) == ("2", "3", None)


def test_keys(store, make):
    first = ApiKey(
        name="alertmanager", prefix="sb_abc", digest="d1", scopes=frozenset({"intake", "api"}), created=make.now, expires=None
    )
    second = ApiKey(name="admin", prefix="sb_def", digest="d2", scopes=frozenset(), created=make.now, expires=make.now + LEASE)
    store.add_key(first)
    store.add_key(second)
    assert store.keys() == [second, first]
    assert store.key_by_digest("d1") == first
    assert store.key_by_digest("d2") == second
    assert store.key_by_digest("d3") is None
    assert store.revoke_key("admin")
    assert not store.revoke_key("admin")
    assert store.keys() == [first]


def test_a_keys_name_is_given_once(store, make):
    key = ApiKey(name="x", prefix="sb_abc", digest="d1", scopes=frozenset({"api"}), created=make.now)
    store.add_key(key)
    with pytest.raises(ConfigError, match="'x' already"):
        store.add_key(ApiKey(name="x", prefix="sb_def", digest="d2", scopes=frozenset(), created=make.now))
    assert store.keys() == [key]
