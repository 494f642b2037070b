"""Lanes: where messages stand in line for an ordered consumer, one lane for each pipeline, step and key.

A lane is free, or on its way to a worker (it bears a claim), or worked on (it names the worker, too). Only its first messages
are ever given out, and only its worker takes them off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    true,
    update,
)

from pipeline.message import Message
from pipeline.store.database import Database
from pipeline.store.history import write_records
from pipeline.store.letters import write_dead
from pipeline.store.rows import DeadLetter, LaneBack, LaneClaim, LaneRow, LanesLostError, Lined, Why, Worked
from pipeline.store.tables import chunks, clean, insert, lane_messages, lanes, to_json, to_message, to_number, to_time

_NO_LAST = 2**62
"""More than any row's number."""


class StoredLanes:
    """What is done with lanes beside `Store.settle`: each method is one transaction, and may raise StoreAway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, token: str, *, now: datetime, lease: timedelta, limit: int, size: int, take_over: bool = True
    ) -> LaneClaim | None:
        """Claim the first messages of lanes of one step, where somebody can go on with them; None where there are none.

        At most `limit` messages, the fewer of each lane the more lanes there are, and about `size` bytes. A lane over
        which a worker died gives its next messages one by one. What cannot be read any more goes to the dead letters.
        A worker whose lease has ended counts as dead, save where `take_over` is false: its lanes are left alone then.
        Nothing to claim costs one read.
        """
        ready = lanes.c.ready <= to_number(now)
        if not take_over:
            ready = and_(ready, lanes.c.worker.is_(None))
        with self._database.reading() as connection:
            if connection.execute(select(lanes.c.lane).where(ready).limit(1)).first() is None:
                return None
        with self._database.writing() as connection:
            if take_over:
                dead = select(lanes.c.lane).where(ready, lanes.c.worker.is_not(None)).with_for_update(skip_locked=True)
                connection.execute(_freed_by_death(now).where(lanes.c.lane.in_(dead)))
            found, letters = _claim(connection, token, ready, now, (limit, size))
            if found is not None:
                connection.execute(_on_its_way(token).values(ready=to_number(now + lease)))
            write_dead(connection, letters)
            write_records(connection, [letter.record() for letter in letters])
        return found

    def next_ready(self) -> datetime | None:
        """Give the time when a lane can be claimed next: it may go on, or a lease on it ends. None: nothing stands in line."""
        with self._database.reading() as connection:
            first = connection.execute(select(func.min(lanes.c.ready))).scalar()
        return None if first is None else to_time(first)

    def sent(self, token: str, until: datetime) -> None:
        """Note that what was claimed is on the queue: where no worker begins with it, it can be claimed again at `until`."""
        with self._database.writing() as connection:
            connection.execute(_on_its_way(token).values(ready=to_number(until)))

    def give_back(self, token: str, now: datetime) -> None:
        """Let go of what was claimed and could not be put on the queue."""
        with self._database.writing() as connection:
            connection.execute(_on_its_way(token).values(claim=None, ready=to_number(now)))

    def begin(
        self, place: tuple[str, str], message_ids: Sequence[str], *, token: str, worker: str, now: datetime, until: datetime
    ) -> list[LaneRow]:
        """Take the lanes of these messages (at a pipeline and step) for a worker; give what it is to do, each lane in order.

        Left out is what somebody else works on, what waits for another attempt, what is done already, and what has a
        message of its lane before it that is not among these. The lanes are the worker's own until `until`. Lanes that came
        with the batch and give it nothing to do, as another worker was through with their messages, are free again.
        """
        with self._database.writing() as connection:
            rows = _begin(connection, place, message_ids, now)
            counts = Counter(row.lane for row in rows)
            mine = {"claim": token, "worker": worker, "ready": to_number(until)}
            if rows:
                change = update(lanes).where(lanes.c.lane == bindparam("its"))
                connection.execute(change, [{"its": lane, "begun": counts[lane]} | mine for lane in sorted(counts)])
            connection.execute(_on_its_way(token).values(claim=None, ready=to_number(now)))
        return rows

    def renew(self, token: str, worker: str, until: datetime) -> int:
        """Let a worker keep its lanes for longer; give the number of those that are its own."""
        mine = update(lanes).where(lanes.c.claim == token, lanes.c.worker == worker)
        with self._database.writing() as connection:
            return connection.execute(mine.values(ready=to_number(until))).rowcount

    def died(self, token: str, now: datetime) -> None:
        """Free the lanes of a worker that died over a batch; what it had of them is given out one by one from now on."""
        with self._database.writing() as connection:
            connection.execute(_freed_by_death(now).where(lanes.c.claim == token))


def line_up(connection: Connection, new: Sequence[Lined]) -> None:
    """Put messages at the end of their lanes, in this order; one that stands there already stays where it is."""
    if not new:
        return
    rows = [_row(one) for one in new]
    empty = {"claim": None, "worker": None, "begun": 0, "suspects": 0, "deaths": 0, "parked": 0}
    wanted = {
        row["lane"]: {"lane": row["lane"], "pipeline": row["pipeline"], "step": row["step"], "ready": to_number(one.due)} | empty
        for row, one in zip(rows, new, strict=True)
    }
    # A lane is locked before a place in it is given, and all lock in one order: nobody overtakes, and nobody blocks for ever.
    connection.execute(_lane_upsert(connection.dialect.name), [wanted[lane] for lane in sorted(wanted)])
    connection.execute(_message_insert(connection.dialect.name), rows)


def finish(connection: Connection, work: Worked) -> None:
    """Take off what a worker has done, and free its lanes.

    Raises LanesLostError where `work.strict` and one of the lanes is not its own any more.
    """
    own = select(lanes.c.lane).where(lanes.c.lane.in_(work.lanes), lanes.c.worker == work.worker)
    mine = list(connection.execute(own.order_by(lanes.c.lane).with_for_update()).scalars())
    if work.strict and len(mine) < len(work.lanes):
        raise LanesLostError("its lanes were given to another worker meanwhile")
    if work.done:
        connection.execute(delete(lane_messages).where(lane_messages.c.id.in_([row.row for row in work.done])))
    for one in work.back:
        if one.row.lane in mine:
            connection.execute(update(lane_messages).where(lane_messages.c.id == one.row.row).values(attempt=one.row.attempt))
    if mine:
        done = Counter(row.lane for row in work.done)
        back = {one.row.lane: one for one in work.back}
        connection.execute(_freeing(), [_freed(lane, done[lane], back.get(lane), work.now) for lane in mine])
        waiting = exists().where(lane_messages.c.lane == lanes.c.lane)
        connection.execute(delete(lanes).where(lanes.c.lane.in_(mine), ~waiting))


def recall(connection: Connection, pipeline: str, step: str, now: datetime) -> None:
    """Let all lanes go on that wait for a consumer's circuit."""
    connection.execute(update(lanes).where(_parked(pipeline, step)).values(ready=to_number(now), parked=0))


def wake(connection: Connection, pipeline: str, step: str, now: datetime) -> None:
    """Let one of the lanes go on that wait for a consumer's circuit, to find out whether the consumer works again."""
    one = select(lanes.c.lane).where(_parked(pipeline, step)).order_by(lanes.c.ready, lanes.c.lane).limit(1)
    sooner = and_(lanes.c.lane.in_(one.with_for_update(skip_locked=True)), lanes.c.ready > to_number(now))
    connection.execute(update(lanes).where(sooner).values(ready=to_number(now)))


def count_lined(connection: Connection) -> dict[tuple[str, str, Why], int]:
    """Count what stands in lanes by pipeline and step."""
    key = (lane_messages.c.pipeline, lane_messages.c.step)
    found = connection.execute(select(*key, func.count()).group_by(*key))
    return {(pipeline, step, Why.ORDER): count for pipeline, step, count in found}


def _claim(
    connection: Connection, token: str, ready: ColumnElement[bool], now: datetime, most: tuple[int, int]
) -> tuple[LaneClaim | None, list[DeadLetter]]:
    limit, size = most
    query = select(lanes).where(ready).order_by(lanes.c.ready, lanes.c.lane).limit(limit)
    chosen = _together(connection.execute(query.with_for_update(skip_locked=True)).all())
    share = 1 if chosen and chosen[0].suspects else max(1, limit // max(1, len(chosen)))
    by_lane, letters = _first(connection, [lane.lane for lane in chosen], share, now)
    taken: list[str] = []
    messages: list[Message] = []
    revision = ""
    for lane, rows in by_lane.items():
        for row, message in rows:
            if messages and (len(row.message.encode()) > size or row.revision != revision):
                break
            size -= len(row.message.encode())
            revision = row.revision
            messages.append(message)
            taken.append(lane)
        if size <= 0:
            break
    if not messages:
        return None, letters
    connection.execute(update(lanes).where(lanes.c.lane.in_(set(taken))).values(claim=token))
    place = chosen[0]
    return LaneClaim(token=token, pipeline=place.pipeline, step=place.step, revision=revision, messages=messages), letters


def _together(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Give the lanes that may share a batch with the first: those of its step; a lane over which a worker died stands alone."""
    if not rows or rows[0].suspects:
        return list(rows[:1])
    first = rows[0]
    return [row for row in rows if (row.pipeline, row.step) == (first.pipeline, first.step) and not row.suspects]


def _first(
    connection: Connection, names: Sequence[str], share: int, now: datetime
) -> tuple[dict[str, list[tuple[Row[Any], Message]]], list[DeadLetter]]:
    """Give the first messages of lanes; what cannot be read is taken out, and an empty lane is deleted."""
    found: dict[str, list[tuple[Row[Any], Message]]] = {lane: [] for lane in names}
    empty = set(names)
    unreadable = []
    for row in connection.execute(_heads(connection.dialect.name, names, share)).all() if names else []:
        empty.discard(row.lane)
        try:
            found[row.lane].append((row, to_message(row.message)))
        except (msgspec.MsgspecError, ValueError) as error:
            connection.execute(delete(lane_messages).where(lane_messages.c.id == row.id))
            unreadable.append(_letter(row, error, now))
    if empty:
        connection.execute(delete(lanes).where(lanes.c.lane.in_(empty)))
    return found, unreadable


def _heads(dialect: str, names: Sequence[str], share: int) -> Select[Any]:
    """Give the query for the first rows of each lane, which reads no others however long a lane is.

    Each database has a form that it does badly: SQLite knows no LATERAL, and PostgreSQL asks for the last row once for each.
    """
    if dialect == "postgresql":
        first = lane_messages.select().where(lane_messages.c.lane == lanes.c.lane).order_by(lane_messages.c.id).limit(share)
        its = first.lateral()
        return select(its).select_from(lanes.join(its, true())).where(lanes.c.lane.in_(names)).order_by(its.c.id)
    other = lane_messages.alias()
    last = select(other.c.id).where(other.c.lane == lanes.c.lane).order_by(other.c.id).limit(1).offset(share - 1)
    up_to_last = lane_messages.c.id <= func.coalesce(last.scalar_subquery(), _NO_LAST)
    joined = select(lane_messages).join(lanes, lanes.c.lane == lane_messages.c.lane)
    return joined.where(lanes.c.lane.in_(names), up_to_last).order_by(lane_messages.c.id)


def _begin(connection: Connection, place: tuple[str, str], message_ids: Sequence[str], now: datetime) -> list[LaneRow]:
    pipeline, step = place
    here = select(lane_messages).where(lane_messages.c.pipeline == pipeline, lane_messages.c.step == step)
    rows = [
        row
        for ids in chunks(message_ids)
        for row in connection.execute(here.where(lane_messages.c.message_id.in_(ids)).order_by(lane_messages.c.id))
    ]
    named = {row.lane for row in rows}
    can_begin = or_(lanes.c.claim.is_not(None), lanes.c.ready <= to_number(now))
    free = select(lanes).where(lanes.c.lane.in_(named), lanes.c.worker.is_(None), can_begin).order_by(lanes.c.lane)
    found = {row.lane: row for row in connection.execute(free.with_for_update())}
    head = select(func.min(lane_messages.c.id)).where(lane_messages.c.lane == lanes.c.lane).scalar_subquery().label("head")
    heads = {row.lane: row.head for row in connection.execute(select(lanes.c.lane, head).where(lanes.c.lane.in_(found)))}
    begun: list[LaneRow] = []
    for lane in sorted(found):
        its = [row for row in rows if row.lane == lane]
        alone = found[lane].suspects > 0
        if its[0].id == heads[lane] and not (alone and len(message_ids) > 1):
            begun += [LaneRow(row.id, lane, row.message_id, row.attempt, found[lane].deaths) for row in its]
    return begun


def _parked(pipeline: str, step: str) -> ColumnElement[bool]:
    return and_(lanes.c.pipeline == pipeline, lanes.c.step == step, lanes.c.claim.is_(None), lanes.c.parked == 1)


def _on_its_way(token: str) -> Any:
    return update(lanes).where(lanes.c.claim == token, lanes.c.worker.is_(None))


def _freed_by_death(now: datetime) -> Any:
    suspects = case((lanes.c.suspects > lanes.c.begun, lanes.c.suspects), else_=lanes.c.begun)
    values = {"claim": None, "worker": None, "begun": 0, "ready": to_number(now)}
    return update(lanes).values(suspects=suspects, deaths=lanes.c.deaths + 1, **values)


@cache
def _freeing() -> Any:
    done: Any = bindparam("done")
    suspects = case((lanes.c.suspects > done, lanes.c.suspects - done), else_=0)
    deaths = case((done > 0, 0), else_=lanes.c.deaths)
    values: dict[str, Any] = {"claim": None, "worker": None, "begun": 0, "ready": bindparam("due"), "parked": bindparam("waits")}
    return update(lanes).where(lanes.c.lane == bindparam("its")).values(suspects=suspects, deaths=deaths, **values)


def _freed(lane: str, done: int, back: LaneBack | None, now: datetime) -> dict[str, Any]:
    due, parked = (back.due, back.parked) if back else (now, False)
    return {"its": lane, "done": done, "due": to_number(due), "waits": int(parked)}


@cache
def _lane_upsert(dialect: str) -> Any:
    statement = insert(lanes, dialect)
    return statement.on_conflict_do_update(index_elements=("lane",), set_={"ready": lanes.c.ready})


@cache
def _message_insert(dialect: str) -> Any:
    return insert(lane_messages, dialect).on_conflict_do_nothing(index_elements=("pipeline", "step", "message_id"))


def _row(one: Lined) -> dict[str, Any]:
    names = f"{one.pipeline}\0{one.step}\0{one.message.key}".encode(errors="surrogatepass")
    return {
        "lane": blake2b(names, digest_size=16).hexdigest(),
        "pipeline": one.pipeline,
        "step": one.step,
        "message_id": one.message.id,
        "attempt": one.attempt,
        "revision": clean(one.revision),
        "message": to_json(one.message),
    }


def _letter(row: Row[Any], error: Exception, now: datetime) -> DeadLetter:
    message = Message(id=row.message_id, source="store", type="unreadable", data=row.message)
    text = f"what stood in line cannot be read: {error}"
    return DeadLetter(message=message, pipeline=row.pipeline, step=row.step, error=text, attempts=row.attempt, at=now)
