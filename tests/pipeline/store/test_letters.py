"""Dead letters: found by what a person knows of them, grouped by error, edited, redriven and dropped."""

from __future__ import annotations

from datetime import timedelta

import pytest
from alembic import command
from sqlalchemy import create_engine, text

from pipeline.store import Outcome, Store, Why
from pipeline.store.fingerprint import alike, fingerprint
from pipeline.store.selection import Selection

SECOND = timedelta(seconds=1)


@pytest.fixture
def bury(store, make):
    """Buries messages a second apart; gives the letters."""

    def them(*errors, start=0, **fields):
        letters = [
            make.dead(make.message(title=error), error=error, at=make.now + (start + number) * SECOND, **fields)
            for number, error in enumerate(errors)
        ]
        store.settle(dead=letters, records=[letter.record() for letter in letters])
        return letters

    return them


@pytest.fixture
def onward(make):
    """Sends every letter back to its step as the engine does, but those in error `stays`."""

    def place(letter, record):
        if letter.error == "stays":
            return "a reason"
        attempt = max(letter.attempts, record.attempt if record else 0) + 1
        fields = {"pipeline": letter.pipeline, "step": letter.step, "attempt": attempt}
        return make.held(letter.message, **fields)

    return place


@pytest.mark.parametrize(
    ("error", "other"),
    [
        ("no answer within 30 s", "no answer within 2.5 s"),
        ("answered 503: 10.0.0.3:8080 is away", "answered 503: 10.1.0.4:80 is away"),
        ("no message 0193a5d2-0000-7000-8000-000000000001", "no message 0193a5d2-ffff-7000-8000-00000000abcd"),
        ("at 2026-03-01T12:00:00Z", "at 2026-03-01 12:30:01.5 +01:00"),
        ("[fe80::1]:443 refused", "[2001:db8::2:3]:8443 refused"),
        ("nobody@example.com is unknown", "some.one@mail.example.org is unknown"),
        ("<object at 0x7f00>", "<object at 0xabcdef>"),
        ("digest deadbeef0 differs", "digest 0123456789abcdef differs"),
    ],
)
def test_errors_that_differ_in_numbers_ids_and_addresses_are_alike(error, other):
    assert alike(error) == alike(other)


@pytest.mark.parametrize(
    ("error", "other"),
    [
        ("answered 400: no", "answered 500: no"),
        ("410: gone", "404: gone"),
        ("HTTP 401", "HTTP 403"),
        ("KeyError: 'host'", "KeyError: 'port'"),
        ("decade", "facade"),
        ("std::vector", "std::map"),
    ],
)
def test_errors_that_tell_of_different_things_are_not_alike(error, other):
    assert alike(error) != alike(other)


def test_a_group_belongs_to_one_step_of_one_pipeline():
    assert len({fingerprint(pipeline, step, "no") for pipeline in "pq" for step in "st"}) == 4


def test_a_selection_takes_what_fits_all_that_is_set(store, make, bury):
    first, second, third = bury("Timed OUT after 3 s", "100% gone", "timed out after 10 s")
    (other,) = bury("no", pipeline="q", step="t", start=10)
    found = {
        Selection(): [other, third, second, first],
        Selection(error="timed out"): [third, first],
        Selection(error="0%"): [second],
        Selection(error="_"): [],
        Selection(pipeline="q"): [other],
        Selection(step="s", since=make.now + SECOND): [third, second],
        Selection(until=make.now + SECOND): [first],
        Selection(ids=(first.message.id, other.message.id)): [other, first],
        Selection(ids=(first.message.id,), pipeline="q"): [],
        Selection(group=fingerprint("p", "s", "timed out")): [],
        Selection(group=fingerprint("q", "t", "no")): [other],
        Selection(error="\0"): [],
    }
    for selection, letters in found.items():
        assert store.dead_letters(selection) == letters, selection
        assert store.count_letters(selection) == len(letters)
    assert store.count_letters(after=second.place) == 2


def test_groups_come_largest_first_with_the_newest_as_example(store, make, bury):
    first, second = bury("after 3 s", "after 10 s")
    (lone,) = bury("no", start=5)
    bury("after 3 s", "after 3 s", "after 4 s", step="t")
    (largest, group, single), total = store.letter_groups()
    assert total == 3
    assert (largest.step, largest.count) == ("t", 3)
    assert (group.count, group.first, group.last) == (2, first.at, second.at)
    assert (group.example, group.error) == (second.message.id, "after 10 s")
    assert (single.example, single.count) == (lone.message.id, 1)
    assert store.dead_letters(Selection(group=group.id)) == [second, first]
    assert [one.id for one in store.letter_groups(limit=1)[0]] == [largest.id]
    assert store.letter_groups(limit=1)[1] == 3
    assert [one.id for one in store.letter_groups(Selection(step="s", error="after"))[0]] == [group.id]


def test_reading_deletes_nothing(store, bury):
    letters = bury("a", "b")
    for _ in range(2):
        store.dead_letters()
        store.letter_groups()
        store.count_letters()
        store.dead_letter(letters[0].message.id)
    assert store.count_letters() == 2


def test_a_letter_is_edited_where_it_is_still_as_it_was_read(store, make, bury):
    (letter,) = bury("no")
    better = letter.message.replace(title="better")
    assert store.edit_letter(letter, better, make.now)
    (found,) = store.dead_letters()
    assert (found.message, found.edited, found.error, found.at) == (better, make.now, "no", letter.at)
    assert not store.edit_letter(letter, letter.message, make.now)
    assert store.edit_letter(found, better.replace(title="best"), make.now)
    (again,) = store.dead_letters()
    assert len({letter.version, found.version, again.version}) == 3
    assert not store.edit_letter(found, letter.message, make.now)
    store.settle(dead=[make.dead(letter.message, at=make.now + SECOND)])
    assert not store.edit_letter(again, letter.message, make.now)
    (buried_anew,) = store.dead_letters()
    assert buried_anew.edited is None
    assert not store.edit_letter(letter, letter.message, make.now)
    store.drop_letters(Selection(), now=make.now, limit=9)
    assert not store.edit_letter(buried_anew, letter.message, make.now)


def test_a_redrive_moves_letters_to_what_is_held_and_says_so(store, make, bury, onward):
    first, second = bury("no", "no", attempts=3)
    (stays,) = bury("stays", start=5)
    now = make.now + timedelta(hours=1)
    moved = store.redrive(Selection(), onward, now=now, limit=10)
    assert moved.left == {("p", "s"): 2}
    assert [(one.message_id, one.reason) for one in moved.refused] == [(stays.message.id, "a reason")]
    assert moved.last == stays.place
    assert store.dead_letters() == [stays]
    assert store.held_counts() == {("p", "s", Why.RETRY): 2}
    claims = store.claim_due(now, owner="me", lease=SECOND, limit=10)
    assert {claim.held.message.id: claim.held.attempt for claim in claims} == {first.message.id: 4, second.message.id: 4}
    (record,) = store.history(first.message.id)
    assert (record.outcome, record.attempt, record.at, record.since) == (Outcome.HELD, 3, now, None)
    assert record.reason == "redriven from the dead letters; it had failed: no"


def test_a_redrive_goes_page_by_page_oldest_first(store, make, bury, onward):
    letters = bury("a", "b", "stays", "d")
    moved = store.redrive(Selection(), onward, now=make.now, limit=2)
    assert (moved.left, moved.last) == ({("p", "s"): 2}, letters[1].place)
    moved = store.redrive(Selection(), onward, now=make.now, limit=2, after=moved.last)
    assert (moved.left, len(moved.refused)) == ({("p", "s"): 1}, 1)
    assert store.redrive(Selection(), onward, now=make.now, limit=2, after=moved.last).last is None
    with pytest.raises(ValueError, match="place"):
        store.redrive(Selection(), onward, now=make.now, limit=2, after="x")


def test_a_dry_run_changes_nothing(store, make, bury, onward):
    letters = bury("a", "b")
    before = store.history(letters[0].message.id)
    assert store.redrive(Selection(), onward, now=make.now, limit=9, dry=True).left == {("p", "s"): 2}
    assert len(store.dead_letters()) == 2
    assert store.held_counts() == {}
    assert store.history(letters[0].message.id) == before


def test_a_redriven_letter_of_which_a_later_attempt_is_on_record_keeps_that_record(store, make, onward):
    message = make.message()
    store.settle(dead=[make.dead(message)], records=[make.record(message.id, Outcome.HELD, attempt=5)])
    store.redrive(Selection(), onward, now=make.now, limit=9)
    (claim,) = store.claim_due(make.now, owner="me", lease=SECOND, limit=9)
    assert claim.held.attempt == 6
    assert store.history(message.id)[0].attempt == 5


def test_what_fails_while_it_moves_leaves_everything_as_it_was(store, make, bury):
    bury("a", "b")

    def fails(letter, record):
        if letter.error == "b":
            raise RuntimeError("killed here")
        return make.held(letter.message)

    with pytest.raises(RuntimeError):
        store.redrive(Selection(), fails, now=make.now, limit=9)
    assert len(store.dead_letters()) == 2
    assert store.held_counts() == {}


def test_what_is_dropped_is_gone_and_its_record_says_when(store, make, bury):
    first, second, _ = bury("no", "why", "x")
    store.settle(records=[make.record(second.message.id, Outcome.DELIVERED, attempt=2, at=make.now + SECOND)])
    assert store.purge(make.now + 3 * SECOND, 1) == 1
    moved = store.drop_letters(Selection(until=make.now + 2 * SECOND), now=make.now + SECOND, limit=9)
    assert moved.left == {("p", "s"): 2}
    assert len(store.dead_letters()) == 1
    assert store.drop_letters(Selection(until=make.now + 2 * SECOND), now=make.now, limit=9).last is None
    (record,) = store.history(first.message.id)
    assert record.outcome is Outcome.BURIED
    assert record.reason == "no (dropped from the dead letters on 2026-03-01 12:00:01 UTC)"
    assert [one.outcome for one in store.history(second.message.id)] == [Outcome.DELIVERED]


MOVE = """
from pipeline.store import Held, Why
from pipeline.store.selection import Selection
def place(letter, record):
    return Held(message=letter.message, pipeline="p", step="s", why=Why.RETRY, due=now, attempt=letter.attempts + 1)
after = None
while (moved := store.redrive(Selection(), place, now=now, limit=10, after=after)).last is not None:
    after = moved.last
    print(sum(moved.left.values()), flush=True)
"""


def test_a_killed_redrive_loses_nothing_and_another_one_finishes_it(store, url, make, bury, spawned):
    letters = bury(*["no"] * 2000)
    with spawned(MOVE, url, make.now.isoformat()) as process:
        process.stdin.write("\n")
        process.stdin.flush()
        for _ in range(3):
            process.stdout.readline()
        process.kill()
        process.wait()
    left = {letter.message.id for letter in store.dead_letters(limit=9999)}
    held = sum(store.held_counts().values())
    assert len(left) + held == 2000
    assert 30 <= held < 2000
    with spawned(MOVE, url, make.now.isoformat()) as one, spawned(MOVE, url, make.now.isoformat()) as other:
        moved = 0
        for process in (one, other):
            process.stdin.write("\n")
            process.stdin.flush()
        for process in (one, other):
            moved += sum(map(int, process.communicate(timeout=60)[0].split()))
    assert moved == len(left)
    assert store.count_letters() == 0
    claims = store.claim_due(make.now, owner="me", lease=SECOND, limit=9999)
    assert {claim.held.message.id for claim in claims} == {letter.message.id for letter in letters}


def test_letters_of_an_older_version_get_their_groups(empty_url, make, monkeypatch):
    store = Store(empty_url)
    upgrade = command.upgrade
    with monkeypatch.context() as older:
        older.setattr(command, "upgrade", lambda config, _: upgrade(config, "0001"))
        store.migrate()
    engine = create_engine(store.url)
    with engine.begin() as connection:
        for number in range(3):
            connection.execute(
                text("INSERT INTO dead_letters VALUES (:id, 'p', 's', 0, 1, :error, '', :message)"),
                {
                    "id": str(number),
                    "error": f"after {number} s",
                    "message": f'{{"id":"{number}","source":"old","time":"2026-03-01T12:00:00Z"}}',
                },
            )
    engine.dispose()
    store.migrate()
    (group,), _ = store.letter_groups()
    assert (group.id, group.count) == (fingerprint("p", "s", "after 1 s"), 3)
    assert len(store.dead_letters(Selection(group=group.id))) == 3
    store.close()
