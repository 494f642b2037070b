"""API keys: their form, what is stored of them, and what is remembered while the store is asked seldom or is away."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline import PermanentError, TemporaryError
from pipeline.keys import FRESH, LAST_KNOWN, MOST, PAUSE, KeyCheck, create_key, digest_of
from pipeline.store import Store


class Asked:
    """A store that counts and can be sent away."""

    def __init__(self, store):
        self.store = store
        self.calls = 0
        self.away = False

    def key_by_digest(self, digest):
        self.calls += 1
        if self.away:
            raise TemporaryError("away")
        return self.store.key_by_digest(digest)


@pytest.fixture
def store(tmp_path):
    made = Store(f"sqlite:///{tmp_path / 'store.db'}")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def asked(store):
    return Asked(store)


@pytest.fixture
def moment():
    return [100.0]


@pytest.fixture
def check(asked, moment):
    return KeyCheck(asked, clock=lambda: moment[0])


def test_a_key_is_found_again_by_its_digest_and_is_nowhere_in_what_is_stored(store):
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    key = create_key(store, "alertmanager", ["intake"], expires)

    (stored,) = store.keys()
    assert store.key_by_digest(digest_of(key)) == stored
    assert (stored.name, stored.scopes, stored.expires) == ("alertmanager", frozenset({"intake"}), expires)
    assert abs(stored.created - datetime.now(UTC)) < timedelta(minutes=1)
    assert key.startswith(stored.prefix)
    assert len(stored.prefix) == 9
    assert key not in repr(stored)


@pytest.mark.parametrize("scopes", [[], ["root"], ["intake", "root"]])
def test_scopes_that_there_are_not_are_refused(store, scopes):
    with pytest.raises(PermanentError, match="intake and api"):
        create_key(store, "x", scopes)
    assert store.keys() == []


def test_no_two_keys_are_alike_and_all_have_the_form(store):
    keys = {create_key(store, str(number), ["api"]) for number in range(50)}

    assert len({digest_of(key) for key in keys} - {None}) == 50
    assert all(key.startswith("sb_") and len(key) == 52 for key in keys)


def test_a_typing_error_is_found_without_the_store(store):
    key = create_key(store, "x", ["api"])
    wrong = [key[:i] + ("A" if key[i] != "A" else "B") + key[i + 1 :] for i in range(3, len(key))]

    assert [digest_of(text) for text in [*wrong, "", "sb_", key[:-1], key + "0", " " + key, key + "\n", "é" * 52]] == [None] * 56


def test_a_key_is_asked_for_once_in_a_while(store, asked, check, moment):
    digest = digest_of(create_key(store, "x", ["api"]))

    assert check.remembered(digest) is None
    assert check.ask(digest).name == "x"
    moment[0] += FRESH - 0.1
    assert check.remembered(digest).key.name == "x"
    moment[0] += 0.1
    assert check.remembered(digest) is None
    assert asked.calls == 1


def test_an_unknown_key_is_remembered_too(asked, check):
    assert check.ask("d") is None
    assert check.remembered("d").key is None
    assert check.last_known("d") is None


def test_a_revoked_key_stops_working_when_the_store_is_asked_again(store, check, moment):
    digest = digest_of(create_key(store, "x", ["api"]))
    check.ask(digest)
    store.revoke_key("x")
    moment[0] += FRESH

    assert check.ask(digest) is None
    assert check.last_known(digest) is None


def test_while_the_store_is_away_a_good_key_goes_on_for_an_hour_and_the_store_is_left_alone_for_a_moment(
    store, asked, check, moment
):
    digest = digest_of(create_key(store, "x", ["api"]))
    check.ask(digest)
    asked.away = True
    moment[0] += FRESH
    with pytest.raises(TemporaryError):
        check.ask(digest)

    assert check.remembered(digest).key.name == "x"
    moment[0] += PAUSE
    assert check.remembered(digest) is None
    moment[0] += LAST_KNOWN - FRESH - PAUSE - 1
    assert check.last_known(digest).key.name == "x"
    moment[0] += 1
    assert check.last_known(digest) is None


def test_a_store_that_gives_another_key_is_not_believed(store, check):
    digest = digest_of(create_key(store, "x", ["api"]))
    (stored,) = store.keys()
    check._store.key_by_digest = lambda _digest: replace(stored, digest="0" * 64)

    assert check.ask(digest) is None


def test_what_is_remembered_is_bounded_and_unknown_keys_push_no_good_one_out(store, check):
    digest = digest_of(create_key(store, "x", ["api"]))
    check.ask(digest)
    for number in range(3 * MOST):
        check.ask(str(number))

    assert len(check._unknown) <= MOST
    assert check.remembered(digest).key.name == "x"
