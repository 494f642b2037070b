"""The store, as the engine and the edges use it: each method is one transaction, done or not done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import URL, text

from pipeline.message import Message
from pipeline.store import (
    accepting,
    circuits,
    history,
    keys,
    lanes,
    leaving,
    letters,
    notes,
    queues,
    results,
    schedules,
    tallies,
    waiting,
)
from pipeline.store.database import Database
from pipeline.store.places import Standing, read_standings
from pipeline.store.results import Result
from pipeline.store.rows import (
    Accepted,
    ApiKey,
    Circuit,
    Claim,
    DeadLetter,
    Held,
    Lined,
    Outcome,
    Record,
    Turn,
    Why,
    Worked,
)
from pipeline.store.selection import ALL, LetterGroup, Moved, Placing, Selection
from pipeline.store.settling import Decided, write
from pipeline.store.tables import to_number, to_time


class Store:
    """What must survive, at a URL: `sqlite:///FILE` or `postgresql+psycopg://…`.

    Safe to share between threads and to carry over a fork; any number of processes may use the same database. Every
    method may raise StoreAway (a TemporaryError: nothing was done, or it can be done again) and ConfigError (tables
    missing). Making one raises ConfigError for a URL that cannot be used, and opens nothing yet. Times bear a zone;
    those given back are in UTC, to the microsecond. A NUL or a lone surrogate in a text becomes a replacement character.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.lanes = lanes.StoredLanes(self._database)
        self.accepted = accepting.StoredAccepted(self._database)

    def __repr__(self) -> str:
        return f"<Store {self._database.place}>"

    @property
    def url(self) -> URL:
        """The database's URL; its text hides the password."""
        return self._database.url

    def migrate(self) -> None:
        """Make or change the tables; several processes may do so at once. Call it once before the first use.

        Raises ConfigError where the tables were made by a newer version of Siftbell.
        """
        from pipeline.store.migrate import migrate  # noqa: PLC0415 - alembic takes 0.3 s, and most processes never need it

        migrate(self._database)

    def ping(self) -> None:
        """Return when the database answers."""
        with self._database.reading() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._database.close()

    def settle(
        self,
        *,
        records: Sequence[Record] = (),
        held: Sequence[Held] = (),
        dead: Sequence[DeadLetter] = (),
        released: Sequence[Claim] = (),
        lined: Sequence[Lined] = (),
        worked: Worked | None = None,
        accepted: Sequence[Accepted] = (),
    ) -> None:
        """Write all that was decided about a batch, or nothing. What several threads bring at once is one transaction.

        A batch that comes again undoes nothing: a record does not change a stored one of a higher attempt, nor a
        stored BURIED of the same attempt, and HELD does not change what went on at the same attempt. A stored DELIVERED
        stays whatever comes, and DELIVERED changes HELD of any attempt: nobody is to deliver it once more. What
        waits in a WINDOW, or has left it, is not put there again; any other is replaced by one of a higher attempt, or
        of the same attempt while a clock has claimed it. A dead letter replaces the earlier one. What is released goes
        first, so that the same message may be held again. What is `lined` goes to the ends of its lanes, behind what was
        `worked` off; may raise LanesLostError. Of what was `accepted` before, the first stays.
        """
        decided = Decided(records, held, dead, released, lined, worked, accepted)
        if decided.sociable:
            self._database.write_together(decided, write)
            return
        with self._database.writing() as connection:
            write(connection, [decided])

    def records(self, pipeline: str, step: str, message_ids: Sequence[str]) -> dict[str, Record]:
        """Give what is recorded of these messages at a step, by message id; those without a record are left out."""
        with self._database.reading() as connection:
            return history.read_records(connection, pipeline, step, message_ids)

    def history(self, message_id: str) -> list[Record]:
        """Give the last decision of every step about a message, in order of time."""
        with self._database.reading() as connection:
            return history.read_history(connection, message_id)

    def histories(self, pipeline: str, message_ids: Sequence[str]) -> dict[str, list[Record]]:
        """Give the last decision of every step of a pipeline about these messages, by message id, where there is any."""
        with self._database.reading() as connection:
            return history.read_histories(connection, pipeline, message_ids)

    def note_result(self, new: Result) -> None:
        """Note which message a reference of another system stands for; what that has said of it already stays."""
        with self._database.writing() as connection:
            results.note(connection, new)

    def tell_result(self, new: Result) -> None:
        """Write what another system says of a delivery; what was final is not changed by what is not."""
        with self._database.writing() as connection:
            results.tell(connection, new)

    def results(self, message_id: str) -> list[Result]:
        """Give what other systems said of a message's deliveries, by pipeline, step and reference."""
        with self._database.reading() as connection:
            return results.read(connection, message_id)

    def standings(self, message_id: str, places: Collection[tuple[str, str]]) -> list[Standing]:
        """Give where a message waits, held or in line, among these places (pipeline and step)."""
        with self._database.reading() as connection:
            return read_standings(connection, message_id, places)

    def ids_between(self, first: str, last: str, limit: int) -> list[str]:
        """Give up to `limit` ids of messages on record or among the dead letters, from one UUID up to another, in order."""
        with self._database.reading() as connection:
            found = {
                *history.read_after(connection, first, last, limit),
                *letters.read_after(connection, first, last, limit),
            }
        return sorted(found)[:limit]

    def origins(self, message_id: str, first: str, last: str, limit: int) -> list[Record]:
        """Give the records of messages in whose place this one went on.

        Found are those whose ids lie between `first` and `last`, and those that were replaced together with them.
        """
        with self._database.reading() as connection:
            return history.read_origins(connection, message_id, first, last, limit)

    def counts(self) -> dict[tuple[str, str, Outcome], int]:
        """Count decisions by pipeline, step and outcome since `counted_since`; HELD: the messages that wait now.

        A batch that was filtered twice, as its worker died, is counted twice; so is a message that was buried and then
        delivered. Reads a row for each hour, step and outcome.
        """
        with self._database.reading() as connection:
            counts = tallies.sum_tallies(connection)
            held = waiting.count_held(connection) | lanes.count_lined(connection)
        for (pipeline, step, _), count in held.items():
            at = (pipeline, step, Outcome.HELD)
            counts[at] = counts.get(at, 0) + count
        return counts

    def counted_since(self) -> datetime | None:
        """Give the hour since which `counts` counts: about as far back as records are kept. None: nothing was decided."""
        with self._database.reading() as connection:
            first = tallies.first_hour(connection)
        return None if first is None else to_time(first)

    def oldest_within(self, most: int, now: datetime) -> datetime | None:
        """Give the time since which about `most` records were written; None where there are no more than that.

        Counts too many rather than too few: a message that waited in a window twice, and what was done twice.
        """
        with self._database.reading() as connection:
            oldest = tallies.oldest_within(connection, most, now)
        return None if oldest is None else to_time(oldest)

    def purge(self, before: datetime, limit: int, *, tried_before: datetime | None = None) -> int:
        """Delete up to `limit` records from before a time, oldest first; give their number.

        Held messages with their records stay, and so do dead letters; a record that says HELD goes only when it is from
        before `tried_before`, too (none: `before`): its message may be on its way to the next attempt. Several may
        purge at once. What was last said of deliveries before that time goes with them.
        """
        with self._database.writing() as connection:
            gone = history.purge_records(connection, before, limit, tried_before=tried_before or before)
            if gone < limit:
                tallies.purge_tallies(connection, before)
            results.purge(connection, before, limit)
            return gone

    def claim_due(self, now: datetime, *, owner: str, lease: timedelta, limit: int) -> list[Claim]:
        """Claim what is due, for this owner alone until the lease ends; give it in order of due time.

        A window comes whole: when its earliest message is due, all unclaimed messages of the same pipeline, step and
        key are given next to each other, oldest message first, even beyond `limit`. While a part of it is claimed none of
        it is given: one owner at a time opens it. Nothing due costs one read. What cannot be read any more goes to the dead
        letters as the text it is.
        """
        with self._database.reading() as connection:
            first = waiting.first_ready(connection)
        if first is None or first > to_number(now):
            return []
        with self._database.writing() as connection:
            claims, unreadable = waiting.claim(connection, now, owner, lease, limit)
            letters.write_dead(connection, unreadable)
            history.write_records(connection, [letter.record() for letter in unreadable])
        return claims

    def release(self, claims: Sequence[Claim]) -> None:
        """Delete what was claimed, after it was published. A claim that went to another owner, or came back, is left."""
        self.settle(released=claims)

    def turn(self, turns: Sequence[Turn]) -> list[Turn]:
        """Hold other messages in place of claims, each turn whole or not at all; give those with a claim of another's by now."""
        with self._database.writing() as connection:
            return waiting.turn(connection, turns)

    def renew(self, claims: Sequence[Claim], until: datetime) -> None:
        """Let the lease of claims end at a later time; one that went to another owner is left."""
        with self._database.writing() as connection:
            waiting.renew(connection, claims, until)

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Let go of what was claimed but could not be published: any clock may claim it again at once."""
        with self._database.writing() as connection:
            waiting.give_back(connection, claims)

    def next_due(self) -> datetime | None:
        """Give the time when something can be claimed next: it is due, or a lease on it ends. None: nothing is held."""
        with self._database.reading() as connection:
            first = waiting.first_ready(connection)
        return None if first is None else to_time(first)

    def held_counts(self) -> dict[tuple[str, str, Why], int]:
        """Count what waits now by pipeline, step and why."""
        with self._database.reading() as connection:
            return waiting.count_held(connection) | lanes.count_lined(connection)

    def cursor(self, pipeline: str, producer: str) -> str | None:
        """Give how far a polling producer has come; None before its first poll."""
        with self._database.reading() as connection:
            return schedules.read_cursor(connection, pipeline, producer)

    def set_cursor(self, pipeline: str, producer: str, cursor: str) -> None:
        """Note how far a polling producer has come."""
        with self._database.writing() as connection:
            schedules.write_cursor(connection, pipeline, producer, cursor)

    def write_notes(self, pipeline: str, producer: str, new: Mapping[str, str]) -> None:
        """Keep what a producer notes of a request; a note takes the place of the earlier one of its name."""
        with self._database.writing() as connection:
            notes.write_notes(connection, pipeline, producer, new)

    def drop_notes(self, pipeline: str, producer: str, old: Mapping[str, str]) -> None:
        """Drop notes; one whose text is another by now stays."""
        with self._database.writing() as connection:
            notes.drop_notes(connection, pipeline, producer, old)

    def notes(self, pipeline: str, producer: str) -> dict[str, str]:
        """Give all that a producer has noted, by name."""
        with self._database.reading() as connection:
            return notes.read_notes(connection, pipeline, producer)

    def claim_occurrence(
        self,
        pipeline: str,
        producer: str,
        occurrence: datetime,
        owner: str,
        lease: timedelta,
        *,
        now: datetime | None = None,
    ) -> bool:
        """Say whether this owner is to run a schedule's occurrence.

        True for one owner at a time, until it finishes or its lease ends. False also for an occurrence that is not
        later than the last finished one, or that is earlier than the last claimed one. `now` is the clock's.
        """
        now = now or datetime.now(UTC)
        with self._database.writing() as connection:
            return schedules.claim(connection, (pipeline, producer), occurrence, owner, lease, now)

    def renew_occurrence(self, pipeline: str, producer: str, owner: str, lease: timedelta, *, now: datetime) -> bool:
        """Let the lease on a claimed occurrence begin anew; False where this owner does not hold it any more."""
        with self._database.writing() as connection:
            return schedules.renew(connection, (pipeline, producer), owner, lease, now)

    def finish_occurrence(self, pipeline: str, producer: str, occurrence: datetime, owner: str) -> bool:
        """Note that an occurrence was run; False where this owner does not hold it any more."""
        with self._database.writing() as connection:
            return schedules.finish(connection, (pipeline, producer), occurrence, owner)

    def last_occurrence(self, pipeline: str, producer: str) -> datetime | None:
        """Give the last occurrence of a schedule that was finished."""
        with self._database.reading() as connection:
            finished = schedules.read_finished(connection, pipeline, producer)
        return None if finished is None else to_time(finished)

    def circuit(self, pipeline: str, step: str) -> Circuit | None:
        """Give a consumer's circuit; None where it never failed."""
        with self._database.reading() as connection:
            return circuits.read(connection, pipeline, step)

    def circuits(self) -> list[Circuit]:
        """Give all circuits there are, by pipeline and step; those of consumers that never failed are missing."""
        with self._database.reading() as connection:
            return circuits.read_all(connection)

    def change_circuit(self, new: Circuit, *, recall: datetime | None = None) -> bool:
        """Write a circuit whose version is one more than that of the stored one; false where somebody was faster.

        With `recall`, the present moment, what waits for it comes back as `Store.recall` says, in the same transaction.
        """
        with self._database.writing() as connection:
            done = circuits.change(connection, new)
            if done and recall is not None:
                circuits.recall(connection, new.pipeline, new.step, recall)
                lanes.recall(connection, new.pipeline, new.step, recall)
        return done

    def recall(self, pipeline: str, step: str, now: datetime) -> None:
        """Let what waits for a consumer's circuit (its key is `circuits.PARKED`) come back from now on, the oldest first.

        A hundred messages a second for ten seconds, then a thousand a second.
        """
        with self._database.writing() as connection:
            circuits.recall(connection, pipeline, step, now)
            lanes.recall(connection, pipeline, step, now)

    def wake(self, pipeline: str, step: str, now: datetime) -> None:
        """Let the oldest of what waits for a consumer's circuit be due now."""
        with self._database.writing() as connection:
            circuits.wake(connection, pipeline, step, now)
            lanes.wake(connection, pipeline, step, now)

    def postpone(self, claims: Sequence[Claim], until: datetime, *, gone: datetime) -> None:
        """Let these claims wait for their consumer's circuit until a time, and let go of them.

        So do up to 5000 others that wait for it and are due earlier. What another clock has claimed, and what has been
        failing since before `gone`, is left as it is.
        """
        with self._database.writing() as connection:
            circuits.postpone(connection, claims, until, gone)

    def dead_letters(self, selection: Selection = ALL, *, limit: int = 100, before: str | None = None) -> list[DeadLetter]:
        """Give dead letters, newest first; `before` is the `place` of the last one of the page before.

        Raises ValueError for a `before` that is no place.
        """
        with self._database.reading() as connection:
            return letters.list_dead(connection, selection, limit, before)

    def dead_letter(self, message_id: str) -> list[DeadLetter]:
        """Give the dead letters of a message, one for each step that gave it up, oldest first."""
        with self._database.reading() as connection:
            return letters.read_dead(connection, message_id)

    def count_dead(self) -> dict[tuple[str, str], int]:
        """Count the dead letters by pipeline and step."""
        with self._database.reading() as connection:
            return letters.count_dead(connection)

    def count_letters(self, selection: Selection = ALL, *, after: str | None = None) -> int:
        """Count the dead letters of a selection; with `after`, a place, those that were given up later than that one."""
        with self._database.reading() as connection:
            return letters.count_selected(connection, selection, after)

    def letter_groups(self, selection: Selection = ALL, *, limit: int = 100) -> tuple[list[LetterGroup], int]:
        """Group dead letters by pipeline, step and kind of error; give the largest groups, and how many there are."""
        with self._database.reading() as connection:
            return letters.group_dead(connection, selection, limit)

    def edit_letter(self, letter: DeadLetter, message: Message, now: datetime) -> bool:
        """Put another message, of the same id, in a dead letter's place; false where that is gone or has changed."""
        with self._database.writing() as connection:
            return letters.edit_dead(connection, letter, message, now)

    def redrive(
        self, selection: Selection, place: Placing, *, now: datetime, limit: int, after: str | None = None, dry: bool = False
    ) -> Moved:
        """Move up to `limit` dead letters to where `place` says, the oldest first, from behind `after` on.

        Each leaves the dead letters in the transaction in which it is held; its record says so, and counts its attempts
        from the one that `place` gave. `dry`: nothing is changed. Raises ValueError for an `after` that is no place.
        """
        with self._database.reading() if dry else self._database.writing() as connection:
            return leaving.redrive(connection, leaving.Page(selection, limit, after), place, now, dry=dry)

    def drop_letters(self, selection: Selection, *, now: datetime, limit: int, after: str | None = None) -> Moved:
        """Delete up to `limit` dead letters for good, the oldest first; the records of their burial say when.

        Raises ValueError for an `after` that is no place.
        """
        with self._database.writing() as connection:
            return leaving.drop(connection, leaving.Page(selection, limit, after), now)

    def remember_queues(self, names: Collection[str], now: datetime) -> set[str]:
        """Note which queues the configuration has, and give them with those it had within the last 30 days.

        What waits on a queue that is gone from the configuration would wait for ever, were it not worked off.
        """
        with self._database.writing() as connection:
            return queues.remember(connection, names, now)

    def add_key(self, key: ApiKey) -> None:
        """Add an API key. Raises ConfigError where there is one of this name."""
        with self._database.writing() as connection:
            keys.write_key(connection, key)

    def key_by_digest(self, digest: str) -> ApiKey | None:
        """Give the key with this digest; whether it has expired is for the caller to see."""
        with self._database.reading() as connection:
            return keys.read_key(connection, digest)

    def keys(self) -> list[ApiKey]:
        """Give all API keys, by name."""
        with self._database.reading() as connection:
            return keys.list_keys(connection)

    def revoke_key(self, name: str) -> bool:
        """Delete an API key; False where there is none of this name."""
        with self._database.writing() as connection:
            return keys.delete_key(connection, name)
