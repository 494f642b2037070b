"""What waits: the rows of `held`, and how clocks claim them when they are due."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from hashlib import blake2b
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, func, or_, select, text, update

from pipeline.message import Message
from pipeline.store.rows import WINDOWS, Claim, DeadLetter, Held, Turn, Why
from pipeline.store.tables import chunks, clean, held, insert, to_json, to_message, to_number, to_time

_CLAIMING = 0x51F7BE12
"""The advisory lock that a claim holds on PostgreSQL: two at once could each get half a window."""


_ROW_ORDER = (held.c.pipeline, held.c.step, held.c.message_id)
"""The order in which rows are locked, by all: so nobody waits for one who waits for him."""


def write_held(connection: Connection, new: Sequence[Held]) -> None:
    """Write what waits, by the rules of `Store.settle`."""
    if new:
        rows = [_held_row(one) for one in new]
        rows.sort(key=lambda row: [row[column.name] for column in _ROW_ORDER])
        connection.execute(_held_upsert(connection.dialect.name), rows)


def release(connection: Connection, claims: Iterable[Claim]) -> int:
    """Delete claimed rows, where they are still their owner's; give their number."""
    return sum(connection.execute(delete(held).where(mine)).rowcount for mine in _claimed(claims))


def turn(connection: Connection, turns: Sequence[Turn]) -> list[Turn]:
    """Do each turn as `Store.turn` says; give those that were not done."""
    claims = sorted((claim for one in turns for claim in one.claims), key=_row_order)
    own: set[tuple[int, str]] = set()
    for some in chunks(claims):
        rows = select(held.c.id, held.c.owner).where(held.c.id.in_([claim.row for claim in some]))
        own.update(tuple(row) for row in connection.execute(rows.order_by(*_ROW_ORDER).with_for_update()))
    lost = [one for one in turns if any((claim.row, claim.owner) not in own for claim in one.claims)]
    done = [one for one in turns if one not in lost]
    release(connection, [claim for one in done for claim in one.claims])
    write_held(connection, [new for one in done for new in one.held])
    return lost


def renew(connection: Connection, claims: Iterable[Claim], until: datetime) -> None:
    """Let the lease of claimed rows end at a later time, where they are still their owner's."""
    for mine in _claimed(claims):
        connection.execute(update(held).where(mine).values(ready=to_number(until)))


def give_back(connection: Connection, claims: Iterable[Claim]) -> None:
    """End the lease of claimed rows, where they are still their owner's."""
    for mine in _claimed(claims):
        connection.execute(update(held).where(mine).values(owner=None, ready=held.c.due))


def first_ready(connection: Connection) -> int | None:
    """Give the time when the next row can be claimed."""
    return connection.execute(select(func.min(held.c.ready))).scalar()


def read_held(connection: Connection, message_id: str, places: Iterable[tuple[str, str]]) -> list[Held]:
    """Give what is held of a message at these places; each is one look into an index."""
    found = []
    for pipeline, step in sorted(set(places)):
        here = and_(held.c.pipeline == clean(pipeline), held.c.step == clean(step), held.c.message_id == clean(message_id))
        found += [_held(row) for row in connection.execute(select(held).where(here))]
    return found


def count_held(connection: Connection) -> dict[tuple[str, str, Why], int]:
    """Count the messages that are held by pipeline, step and why; what filters keep for their keys is none."""
    key = (held.c.pipeline, held.c.step, held.c.why)
    counted = select(*key, func.count()).group_by(*key).where(held.c.why != Why.KEPT.value)
    return {(pipeline, step, Why(why)): count for pipeline, step, why, count in connection.execute(counted)}


def claim(
    connection: Connection, now: datetime, owner: str, lease: timedelta, limit: int
) -> tuple[list[Claim], list[DeadLetter]]:
    """Lease up to `limit` due rows, and the windows that some of them belong to; what cannot be read is taken out.

    A window of which somebody has leased a part is left to him: what he is about to keep for its key is not there yet.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CLAIMING})
    ready = held.c.ready <= to_number(now)
    rows, windows = _due(connection, ready, limit)
    for some in chunks(windows):
        rows.update((row.id, row) for row in connection.execute(_rest_of(some, ready)))
    for ids in chunks(sorted(rows)):
        connection.execute(update(held).where(held.c.id.in_(ids)).values(owner=owner, ready=to_number(now + lease)))
    claims, unreadable = [], []
    for row in _in_order(rows.values()):
        try:
            claims.append(Claim(row=row.id, owner=owner, held=_held(row)))
        except (msgspec.MsgspecError, ValueError) as error:
            connection.execute(delete(held).where(held.c.id == row.id))
            unreadable.append(_letter(row, error, now))
    return claims, unreadable


def _row_order(claim: Claim) -> tuple[str, str, str]:
    return claim.held.pipeline, claim.held.step, claim.held.message.id


def _due(connection: Connection, ready: ColumnElement[bool], limit: int) -> tuple[dict[int, Row[Any]], list[str]]:
    """Give up to `limit` due rows by id, and the windows that some belong to: none of which a part is leased."""
    busy: set[str] = set()
    while True:
        free = or_(held.c.window_id.is_(None), held.c.window_id.not_in(busy))
        due = select(held).where(ready, free).order_by(held.c.ready).limit(limit).with_for_update(skip_locked=True)
        rows = {row.id: row for row in connection.execute(due)}
        windows = sorted({row.window_id for row in rows.values() if row.window_id is not None})
        leased = {window for some in chunks(windows) for (window,) in connection.execute(_leased(some, ready))}
        if not leased:
            return rows, windows
        busy |= leased


def _leased(windows: Sequence[str], ready: ColumnElement[bool]) -> Select[Any]:
    return select(held.c.window_id).distinct().where(held.c.window_id.in_(windows), held.c.owner.is_not(None), ~ready)


def _claimed(claims: Iterable[Claim]) -> Iterator[ColumnElement[bool]]:
    for owner, some in groupby(sorted(claims, key=lambda claim: (claim.owner, claim.row)), key=lambda claim: claim.owner):
        for ids in chunks([claim.row for claim in some]):
            yield and_(held.c.id.in_(ids), held.c.owner == owner)


def _rest_of(windows: Sequence[str], ready: Any) -> Select[Any]:
    unclaimed = and_(held.c.window_id.in_(windows), or_(held.c.owner.is_(None), ready))
    return select(held).where(unclaimed).order_by(*_ROW_ORDER).with_for_update()


def _in_order(rows: Iterable[Row[Any]]) -> list[Row[Any]]:
    """Sort by due time; the rows of a window stand together, by message id, where its first row is due."""
    rows = list(rows)
    first: dict[str, int] = {}
    for row in rows:
        if row.window_id is not None:
            first[row.window_id] = min(row.due, first.get(row.window_id, row.due))
    return sorted(rows, key=lambda row: (first.get(row.window_id, row.due), row.window_id or "", row.message_id))


@cache
def _held_upsert(dialect: str) -> Any:
    """What waits in a window keeps its row. Others go on to a higher attempt, or to the same one where the row is on its way out.

    A row that is leased will be deleted when its clock has published it; a message that comes back until then with the
    same attempt would be lost with it.
    """
    statement = insert(held, dialect)
    new = statement.excluded
    goes_on = and_(
        or_(new.why != Why.WINDOW.value, held.c.why != Why.WINDOW.value),
        or_(new.attempt > held.c.attempt, and_(new.attempt == held.c.attempt, held.c.owner.is_not(None))),
    )
    names = ("why", "due", "ready", "owner", "key", "window_id", "attempt", "revision", "message")
    return statement.on_conflict_do_update(
        index_elements=("pipeline", "step", "message_id"), set_={name: new[name] for name in names}, where=goes_on
    )


def _held_row(one: Held) -> dict[str, Any]:
    due = to_number(one.due)
    return {
        "pipeline": one.pipeline,
        "step": one.step,
        "message_id": one.message.id,
        "why": one.why.value,
        "due": due,
        "ready": due,
        "owner": None,
        "key": clean(one.key),
        "window_id": _window_id(one) if one.why in WINDOWS else None,
        "attempt": one.attempt,
        "revision": one.revision,
        "message": to_json(one.message),
    }


def _window_id(one: Held) -> str:
    names = f"{one.pipeline}\0{one.step}\0{one.key}".encode(errors="surrogatepass")
    return blake2b(names, digest_size=16).hexdigest()


def _letter(row: Row[Any], error: Exception, now: datetime) -> DeadLetter:
    message = Message(id=row.message_id, source="store", type="unreadable", data=row.message)
    text = f"what was held cannot be read: {error}"
    return DeadLetter(message=message, pipeline=row.pipeline, step=row.step, error=text, attempts=row.attempt, at=now)


def _held(row: Row[Any]) -> Held:
    return Held(
        message=to_message(row.message),
        pipeline=row.pipeline,
        step=row.step,
        why=Why(row.why),
        due=to_time(row.due),
        key=row.key,
        attempt=row.attempt,
        revision=row.revision,
    )
