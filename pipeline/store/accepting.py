"""Messages as they were accepted, for as long as their pipelines keep them: the rows of `accepted`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, or_, select, tuple_

from pipeline.store.database import Database
from pipeline.store.direct import Direct
from pipeline.store.rows import Accepted, AcceptedSpan
from pipeline.store.tables import accepted, clean, insert, to_json, to_message, to_number, to_time

Place = tuple[int, int]
"""Where a row stands in its pipeline's order: its time and its id."""
_PLACE: Final = (accepted.c.at, accepted.c.id)
PAGE: Final = 500
"""Messages that are read in one go."""
ALL: Final = 2**62
"""As many as there may be."""


def write_accepted(connection: Connection, new: Sequence[Accepted]) -> None:
    """Write messages; of one that is there already the first stays."""
    if new:
        rows = [_row(one) for one in new]
        rows.sort(key=lambda row: (row["pipeline"], row["message_id"]))  # one order for all: no deadlocks
        _INSERT.run(connection, rows)


class StoredAccepted:
    """What `Store.accepted` can be asked. Methods may raise what those of `Store` may."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def between(
        self, pipeline: str, *, since: datetime | None = None, until: datetime | None = None, newest: int
    ) -> Iterator[Accepted]:
        """Give a pipeline's messages from a time up to before another one, in the order in which they were worked on.

        Where there are more than `newest`, the older ones are left out; what cannot be read any more is, too. They are
        read as they are asked for: one that is purged meanwhile is not given.
        """
        within = _within(pipeline, since, until)
        with self._database.reading() as connection:
            behind = _place_of(connection, within, newest)
        while True:
            here = within if behind is None else [*within, tuple_(*_PLACE) > tuple_(*behind)]
            with self._database.reading() as connection:
                rows = connection.execute(select(accepted).where(*here).order_by(*_PLACE).limit(PAGE)).all()
            yield from _readable(rows)
            if len(rows) < PAGE:
                return
            behind = (rows[-1].at, rows[-1].id)

    def span(self, pipeline: str, *, since: datetime | None = None, until: datetime | None = None) -> AcceptedSpan | None:
        """Count a pipeline's messages of a time, and say when the first and the last were worked on; None: there is none."""
        query = select(func.count(), func.min(accepted.c.at), func.max(accepted.c.at)).where(*_within(pipeline, since, until))
        with self._database.reading() as connection:
            count, oldest, newest = connection.execute(query).one()
        return AcceptedSpan(count, to_time(oldest), to_time(newest)) if count else None

    def purge(self, keeps: Mapping[str, tuple[datetime, int]], otherwise: datetime, limit: int) -> int:
        """Delete up to `limit` messages of each pipeline, oldest first; give the largest number of them.

        `keeps` says for each pipeline before when they go, and how many may stay; those of others go where they are from
        before `otherwise`. Several may purge at once.
        """
        with self._database.reading() as connection:
            names = _pipelines(connection)
        if not names:
            return 0
        with self._database.writing() as connection:
            return max(_purge(connection, name, *keeps.get(name, (otherwise, ALL)), limit) for name in names)


def _purge(connection: Connection, pipeline: str, before: datetime, most: int, limit: int) -> int:
    own = accepted.c.pipeline == pipeline
    over: ColumnElement[bool] = accepted.c.at < to_number(before)
    if (first_over := _place_of(connection, [own], most)) is not None:
        over = or_(over, tuple_(*_PLACE) <= tuple_(*first_over))
    old = select(accepted.c.id).where(own, over).order_by(*_PLACE).limit(limit).with_for_update(skip_locked=True)
    return connection.execute(delete(accepted).where(accepted.c.id.in_(old))).rowcount


def _pipelines(connection: Connection) -> list[str]:
    """Give the pipelines that have rows: a look into the index for each, however many rows they have."""
    names = select(func.min(accepted.c.pipeline).label("pipeline")).cte("names", recursive=True)
    following = select(func.min(accepted.c.pipeline)).where(accepted.c.pipeline > names.c.pipeline).scalar_subquery()
    names = names.union_all(select(following).where(names.c.pipeline.is_not(None)))
    return [name for (name,) in connection.execute(select(names.c.pipeline)) if name is not None]


def _place_of(connection: Connection, within: Sequence[ColumnElement[bool]], number: int) -> Place | None:
    """Give the place of the row that stands behind `number` newer ones."""
    newest_first = (column.desc() for column in _PLACE)
    found = connection.execute(select(*_PLACE).where(*within).order_by(*newest_first).offset(number).limit(1)).one_or_none()
    return None if found is None else (found.at, found.id)


def _within(pipeline: str, since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [accepted.c.pipeline == clean(pipeline)]
    if since is not None:
        found.append(accepted.c.at >= to_number(since))
    if until is not None:
        found.append(accepted.c.at < to_number(until))
    return found


def _readable(rows: Sequence[Any]) -> Iterator[Accepted]:
    for row in rows:
        try:
            yield Accepted(message=to_message(row.message), pipeline=row.pipeline, at=to_time(row.at))
        except (msgspec.MsgspecError, ValueError):
            continue


def _row(one: Accepted) -> dict[str, Any]:
    return {
        "pipeline": one.pipeline,
        "message_id": one.message.id,
        "at": to_number(one.at),
        "message": to_json(one.message),
    }


def _insert(dialect: str) -> Any:
    names = ("pipeline", "message_id", "at", "message")
    values = {name: bindparam(name, type_=accepted.c[name].type) for name in names}
    return insert(accepted, dialect).values(values).on_conflict_do_nothing(index_elements=("pipeline", "message_id"))


_INSERT: Final = Direct(_insert)
