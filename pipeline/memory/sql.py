"""The memory in a database: the store's, or one of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import and_, bindparam, case, delete, func, or_, select, tuple_, update

from pipeline.memory.backend import MOST_MEMBERS, SLACK, Reservation, Scoped, microseconds, rate_digest
from pipeline.plugin import Memory
from pipeline.store.database import Database
from pipeline.store.direct import Direct
from pipeline.store.tables import insert, members, memory, to_number

_CHUNK: Final = 1000
_MOST: Final = 200_000


class SqlMemory:
    """The memory in the store's database; a commit does not wait for the disk, as what it holds may be forgotten."""

    def __init__(self, url: str, *, now: Callable[[], datetime]) -> None:
        self._database = Database(url, durable=False)
        self._now = now

    def migrate(self) -> None:
        """Make or change the tables, where the database is not the store's."""
        from pipeline.store.migrate import migrate  # noqa: PLC0415 - as in `Store.migrate`

        migrate(self._database)

    def scoped(self, pipeline: str, step: str, asker: str = "") -> Memory:
        """Give a step's memory."""
        return Scoped(self, (pipeline, step), asker)

    def reserve(
        self, pipeline: str, step: str, interval: timedelta, patience: timedelta, *, again: int, fresh: int
    ) -> Reservation:
        """Give turns; what is stored is when the next turn is (`count`), and where the line ends (`until`, and the slack)."""
        digest = rate_digest(pipeline, step, interval)
        known = select(memory.c.count, memory.c.until).where(memory.c.digest == digest).with_for_update()
        with self._database.writing() as connection:
            first = insert(memory, connection.dialect.name).values(digest=digest, until=0, count=0, asker="")
            connection.execute(first.on_conflict_do_nothing())
            turn, until = connection.execute(known).one()
            now = to_number(self._now())  # not before it was this caller's turn to ask: that may have taken a while
            turn, line = max(turn, now - microseconds(SLACK)), until - microseconds(SLACK)
            room = max(0, (now + microseconds(patience) - turn) // microseconds(interval) + 1)
            granted = min(room, again if line > max(now, turn) else again + fresh)
            after = turn + granted * microseconds(interval)
            line = max(line, after)
            ending = line + (again + fresh - granted) * microseconds(interval)
            changed = update(memory).where(memory.c.digest == digest)
            connection.execute(changed.values(count=after, until=ending + microseconds(SLACK)))
        return Reservation(granted, timedelta(microseconds=turn - now), timedelta(microseconds=line - now))

    def purge(self) -> int:
        """Delete what is over, a thousand rows in each transaction."""
        before, total = to_number(self._now()), 0
        over = select(memory.c.digest).where(memory.c.until <= before).limit(_CHUNK)
        expired = select(members.c.digest, members.c.member).where(members.c.until <= before).limit(_CHUNK)
        expired = expired.with_for_update(skip_locked=True)  # who adds a member deletes those of its key that are over, too
        for gone in (
            delete(memory).where(memory.c.digest.in_(over)),
            delete(members).where(tuple_(members.c.digest, members.c.member).in_(expired)),
        ):
            while total < _MOST:
                with self._database.writing() as connection:
                    count = connection.execute(gone).rowcount
                total += count
                if count < _CHUNK:
                    break
        return total

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def first(self, digest: str, within: timedelta, asker: str) -> bool:
        """Start a window where there is none; say whether this asker started it."""
        now = self._now()
        row = {"digest": digest, "until": to_number(now + within), "count": 1, "asker": asker, "now": to_number(now)}
        with self._database.writing() as connection:
            return connection.execute(_first_upsert(connection.dialect.name), row).scalar() is not None

    def count(self, digest: str, within: timedelta, asked: str | None) -> int:
        """Count up in a window, starting it where there is none; or give again what was noted under `asked`."""
        now = self._now()
        told = select(memory.c.count).where(memory.c.digest == asked, memory.c.until > to_number(now))
        row = {"digest": digest, "until": to_number(now + within), "count": 1, "asker": "", "now": to_number(now)}
        with self._database.writing() as connection:
            if asked and (before := connection.execute(told).scalar()) is not None:
                return int(before)
            count = int(connection.execute(_count_upsert(connection.dialect.name), row).scalar_one())
            if asked:
                connection.execute(_told_upsert(connection.dialect.name), row | {"digest": asked, "count": count})
            return count

    def remember(self, digest: str, value: str, within: timedelta) -> None:
        """Keep a text, which stands where a window has its asker."""
        row = {"digest": digest, "until": to_number(self._now() + within), "count": 0, "asker": value}
        with self._database.writing() as connection:
            connection.execute(_told_upsert(connection.dialect.name), row)

    def recall(self, digest: str) -> str | None:
        """Give the text, or None where there is none or its time is over."""
        with self._database.reading() as connection:
            found = _RECALL.rows(connection, {"digest": digest, "now": to_number(self._now())})
        return str(found[0][0]) if found else None

    def swap(self, digest: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep a text in place of the one that is expected there."""
        now = self._now()
        row = {"digest": digest, "until": to_number(now + within), "count": 0, "asker": new, "now": to_number(now)}
        with self._database.writing() as connection:
            found = _NEW.rows(connection, row) if old is None else _SWAPPED.rows(connection, row | {"old": old})
        return bool(found)

    def forget(self, *digests: str) -> None:
        """Delete windows and texts."""
        with self._database.writing() as connection:
            connection.execute(delete(memory).where(memory.c.digest.in_(digests)))
            connection.execute(delete(members).where(members.c.digest.in_(digests)))

    def add(self, digest: str, member: str, within: timedelta) -> list[str]:
        """Make a text a member, let those beyond the bound go, and give all there are."""
        now = self._now()
        row = {"digest": digest, "member": member, "until": to_number(now + within)}
        mine = members.c.digest == digest
        late = select(members.c.member).where(mine).order_by(members.c.until.desc(), members.c.member).offset(MOST_MEMBERS)
        with self._database.writing() as connection:
            if (
                connection.dialect.name == "postgresql"
            ):  # or two at once would not see one another; SQLite has one writer at a time
                connection.execute(select(func.pg_advisory_xact_lock(int(digest[:15], 16))))
            connection.execute(_member_upsert(connection.dialect.name), row)
            connection.execute(delete(members).where(mine, or_(members.c.until <= to_number(now), members.c.member.in_(late))))
            return list(connection.execute(_members_now(digest, now)).scalars())

    def remove(self, digest: str, member: str) -> None:
        """Let a text be no member any more."""
        with self._database.writing() as connection:
            connection.execute(delete(members).where(members.c.digest == digest, members.c.member == member))

    def members(self, digest: str) -> list[str]:
        """Give the members."""
        with self._database.reading() as connection:
            return list(connection.execute(_members_now(digest, self._now())).scalars())


@cache
def _first_upsert(dialect: str) -> Any:
    statement = insert(memory, dialect).values(_values())
    over = memory.c.until <= bindparam("now")
    mine = and_(memory.c.asker != "", memory.c.asker == statement.excluded.asker)
    changed = {"until": case((over, statement.excluded.until), else_=memory.c.until), "asker": statement.excluded.asker}
    return statement.on_conflict_do_update(index_elements=("digest",), set_=changed, where=or_(over, mine)).returning(
        memory.c.digest
    )


def _recall(_dialect: str) -> Any:
    return select(memory.c.asker).where(memory.c.digest == bindparam("digest"), memory.c.until > bindparam("now"))


def _swap(_dialect: str) -> Any:
    there = and_(memory.c.digest == bindparam("digest"), memory.c.asker == bindparam("old"), memory.c.until > bindparam("now"))
    changed: dict[str, Any] = {name: bindparam(name) for name in ("asker", "until")}
    return update(memory).where(there).values(changed).returning(memory.c.digest)


def _new_upsert(dialect: str) -> Any:
    statement = insert(memory, dialect).values(_values())
    changed = {name: statement.excluded[name] for name in ("until", "count", "asker")}
    over = memory.c.until <= bindparam("now")
    return statement.on_conflict_do_update(index_elements=("digest",), set_=changed, where=over).returning(memory.c.digest)


@cache
def _count_upsert(dialect: str) -> Any:
    statement = insert(memory, dialect).values(_values())
    over = memory.c.until <= bindparam("now")
    changed = {
        "until": case((over, statement.excluded.until), else_=memory.c.until),
        "count": case((over, 1), else_=memory.c.count + 1),
    }
    return statement.on_conflict_do_update(index_elements=("digest",), set_=changed).returning(memory.c.count)


@cache
def _told_upsert(dialect: str) -> Any:
    statement = insert(memory, dialect).values(_values())
    changed = {name: statement.excluded[name] for name in ("until", "count", "asker")}
    return statement.on_conflict_do_update(index_elements=("digest",), set_=changed)


@cache
def _member_upsert(dialect: str) -> Any:
    statement = insert(members, dialect).values({column.name: bindparam(column.name) for column in members.c})
    return statement.on_conflict_do_update(index_elements=("digest", "member"), set_={"until": statement.excluded.until})


def _members_now(digest: str, now: datetime) -> Any:
    return select(members.c.member).where(members.c.digest == digest, members.c.until > to_number(now))


_RECALL: Final = Direct(_recall)
_SWAPPED: Final = Direct(_swap)
_NEW: Final = Direct(_new_upsert)


def _values() -> dict[str, Any]:
    return {column.name: bindparam(column.name) for column in memory.c}
