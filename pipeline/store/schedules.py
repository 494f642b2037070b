"""How far producers have come: the rows of `cursors` and `schedules`, one for each producer."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, and_, or_, select, update

from pipeline.store.tables import clean, cursors, insert, schedules, to_number

AHEAD: Final = timedelta(hours=1)
"""How far the clocks of machines may be apart. What is noted for later than that was noted while one was wrong, and holds up
nothing now that it is right."""


def read_cursor(connection: Connection, pipeline: str, producer: str) -> str | None:
    """Give the stored cursor."""
    query = select(cursors.c.cursor).where(cursors.c.pipeline == pipeline, cursors.c.producer == producer)
    return connection.execute(query).scalar()


def write_cursor(connection: Connection, pipeline: str, producer: str, cursor: str) -> None:
    """Store a cursor over the earlier one."""
    row = {"pipeline": pipeline, "producer": producer, "cursor": clean(cursor)}
    connection.execute(_cursor_upsert(connection.dialect.name), row)


def claim(
    connection: Connection, place: tuple[str, str], occurrence: datetime, owner: str, lease: timedelta, now: datetime
) -> bool:
    """Lease an occurrence of a producer's schedule, where nobody else holds the schedule and it was not finished."""
    row = {
        "pipeline": place[0],
        "producer": place[1],
        "occurrence": to_number(occurrence),
        "owner": owner,
        "until": to_number(now + lease),
        "finished": None,
    }
    statement = insert(schedules, connection.dialect.name)
    soon, due = to_number(now + AHEAD), to_number(occurrence)
    free = and_(
        or_(schedules.c.owner.is_(None), schedules.c.until <= to_number(now), schedules.c.until > soon),
        or_(schedules.c.finished.is_(None), schedules.c.finished < due, schedules.c.finished > soon),
        or_(schedules.c.occurrence <= due, schedules.c.occurrence > soon),
    )
    changed = {name: row[name] for name in ("occurrence", "owner", "until")}
    upsert = statement.on_conflict_do_update(index_elements=("pipeline", "producer"), set_=changed, where=free)
    # What RETURNING gives is sure in both dialects; the row count of an upsert is not.
    return connection.execute(upsert.returning(schedules.c.owner), row).first() is not None


def renew(connection: Connection, place: tuple[str, str], owner: str, lease: timedelta, now: datetime) -> bool:
    """Lease on what this owner still holds."""
    mine = and_(schedules.c.pipeline == place[0], schedules.c.producer == place[1], schedules.c.owner == owner)
    return bool(connection.execute(update(schedules).where(mine).values(until=to_number(now + lease))).rowcount)


def finish(connection: Connection, place: tuple[str, str], occurrence: datetime, owner: str) -> bool:
    """Note that an occurrence is done, where its owner still holds it."""
    done = to_number(occurrence)
    mine = and_(
        schedules.c.pipeline == place[0],
        schedules.c.producer == place[1],
        schedules.c.owner == owner,
        schedules.c.occurrence == done,
    )
    return bool(connection.execute(update(schedules).where(mine).values(owner=None, until=0, finished=done)).rowcount)


def read_finished(connection: Connection, pipeline: str, producer: str) -> int | None:
    """Give the last occurrence that was finished."""
    query = select(schedules.c.finished).where(schedules.c.pipeline == pipeline, schedules.c.producer == producer)
    return connection.execute(query).scalar()


@cache
def _cursor_upsert(dialect: str) -> Any:
    statement = insert(cursors, dialect)
    return statement.on_conflict_do_update(index_elements=("pipeline", "producer"), set_={"cursor": statement.excluded.cursor})
