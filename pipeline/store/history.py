"""What was decided about messages at each step: the rows of `records`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    exists,
    literal_column,
    or_,
    select,
    text,
    true,
    tuple_,
)

from pipeline.store.direct import Direct
from pipeline.store.rows import Held, Outcome, Record, Why
from pipeline.store.tables import chunks, clean, given_texts, held, insert, lane_messages, records, to_number, to_time

_PLACE: Final = attrgetter("message_id", "pipeline", "step")
_DECISION: Final = attrgetter("pipeline", "step", "outcome", "at", "attempt", "since", "reason", "became")
WENT_ON: Final = (Outcome.DROPPED, Outcome.REPLACED, Outcome.PASSED)
"""The decisions after which a message does not wait at a step."""


def write_records(connection: Connection, new: Sequence[Record]) -> list[dict[str, Any]]:
    """Write each record by the rules of `Store.settle`; give the rows as they were handed to the database."""
    return _write(connection, _UPSERT, new)


def write_anew(connection: Connection, new: Sequence[Record]) -> None:
    """Write each record over the stored one unless that is of a later attempt: a person has the message tried once more."""
    _write(connection, _ANEW, new)


def read_records(connection: Connection, pipeline: str, step: str, message_ids: Sequence[str]) -> dict[str, Record]:
    """Give the records of these messages at a step."""
    asked = {"message_ids": json.dumps(list(message_ids)), "pipeline": pipeline, "step": step}
    found = (_record(row) for row in _AT_STEP.rows(connection, asked)) if message_ids else ()
    return {record.message_id: record for record in found}


def read_history(connection: Connection, message_id: str) -> list[Record]:
    """Give all records of a message, in order of time."""
    query = (
        select(records)
        .where(records.c.message_id == clean(message_id))
        .order_by(records.c.at, records.c.pipeline, records.c.step)
    )
    return [_record(row) for row in connection.execute(query)]


def read_histories(connection: Connection, pipeline: str, message_ids: Sequence[str]) -> dict[str, list[Record]]:
    """Give all records of these messages in a pipeline."""
    found: dict[str, list[Record]] = {}
    for some in chunks([clean(message_id) for message_id in message_ids]):
        query = select(records).where(records.c.message_id.in_(some), records.c.pipeline == clean(pipeline))
        for row in connection.execute(query):
            found.setdefault(row.message_id, []).append(_record(row))
    return found


def not_gone_on(connection: Connection, new: Sequence[Held]) -> list[Held]:
    """Leave out what is to wait in a window that it has left before: its batch came again after that."""
    places = {(one.pipeline, one.step) for one in new if one.why is Why.WINDOW}
    left: set[tuple[str, str, str]] = set()
    for pipeline, step in places:
        waiting = [one.message.id for one in new if one.why is Why.WINDOW and (one.pipeline, one.step) == (pipeline, step)]
        known = read_records(connection, pipeline, step, waiting)
        left.update((pipeline, step, message_id) for message_id, record in known.items() if record.outcome in WENT_ON)
    return [one for one in new if one.why is not Why.WINDOW or (one.pipeline, one.step, one.message.id) not in left]


def read_after(connection: Connection, first: str, last: str, limit: int) -> list[str]:
    """Give the ids of messages on record from one id up to another, in order."""
    between = records.c.message_id.between(first, last)
    query = select(records.c.message_id).where(between).distinct().order_by(records.c.message_id).limit(limit)
    return [message_id for (message_id,) in connection.execute(query)]


def read_origins(connection: Connection, message_id: str, first: str, last: str, limit: int) -> list[Record]:
    """Give the records of messages that went on as this one: those whose ids lie in a range, and those decided with them."""
    near = _replaced(connection, records.c.message_id.between(first, last))
    places = {(record.at, record.step) for record in near if message_id in record.became}
    if not places:
        return []
    together = or_(*(and_(records.c.at == to_number(at), records.c.step == step) for at, step in places))
    return [record for record in _replaced(connection, together) if message_id in record.became][:limit]


def purge_records(connection: Connection, before: datetime, limit: int, *, tried_before: datetime) -> int:
    """Delete up to `limit` records from before a time, but none of what is held: its record knows since when it fails.

    Nor of what was held and may be on the queue for its next attempt, unless that record is from before `tried_before`.
    What somebody else is writing or deleting just now is passed over: nobody waits, nobody deletes twice.
    """
    names = (records.c.message_id, records.c.pipeline, records.c.step)
    waits = or_(
        *(
            exists().where(
                table.c.pipeline == records.c.pipeline, table.c.step == records.c.step, table.c.message_id == records.c.message_id
            )
            for table in (held, lane_messages)
        )
    )
    over = or_(records.c.outcome != Outcome.HELD.value, records.c.at < to_number(tried_before))
    old = select(*names).where(records.c.at < to_number(before), over, ~waits).order_by(records.c.at).limit(limit)
    old = old.with_for_update(skip_locked=True, of=records)
    return connection.execute(delete(records).where(tuple_(*names).in_(old))).rowcount


def _replaced(connection: Connection, where: ColumnElement[bool]) -> list[Record]:
    query = select(records).where(where, records.c.outcome == Outcome.REPLACED.value, records.c.became.is_not(None))
    return [_record(row) for row in connection.execute(query.order_by(records.c.message_id))]


def _write(connection: Connection, statement: Direct, new: Sequence[Record]) -> list[dict[str, Any]]:
    ordered = sorted(new, key=_PLACE)  # one order for all: no deadlocks
    rows = [_alike(list(alike)) for _, alike in groupby(ordered, key=_DECISION)]
    if rows:
        statement.run(connection, rows)
    return rows


def _records_at_step(dialect: str) -> Any:
    asked = given_texts("message_ids", dialect)
    at_step = select(records).where(records.c.pipeline == bindparam("pipeline"), records.c.step == bindparam("step"))
    if dialect != "postgresql":
        return at_step.where(records.c.message_id.in_(select(asked)))
    # One look-up for each id. With IN, PostgreSQL reads the whole table until it has statistics, and for each row all ids.
    looked_up = at_step.where(records.c.message_id == asked).limit(literal_column("1")).lateral()
    return select(looked_up).select_from(asked.table).join(looked_up, true())


def _record_upsert(dialect: str) -> Any:
    statement = _insert_alike(dialect)
    new = statement.excluded
    delivered, held_before = (records.c.outcome == _literal(outcome) for outcome in (Outcome.DELIVERED, Outcome.HELD))
    buried = records.c.outcome == _literal(Outcome.BURIED)
    again = and_(new.outcome == _literal(Outcome.HELD), records.c.outcome.in_([_literal(outcome) for outcome in WENT_ON]))
    later = or_(new.attempt > records.c.attempt, and_(new.attempt == records.c.attempt, ~buried, ~again))
    goes_on = and_(~delivered, or_(later, and_(new.outcome == _literal(Outcome.DELIVERED), held_before)))
    changed = {name: new[name] for name in ("outcome", "at", "attempt", "since", "reason", "became")}
    return statement.on_conflict_do_update(index_elements=("message_id", "pipeline", "step"), set_=changed, where=goes_on)


def _record_anew(dialect: str) -> Any:
    statement = _insert_alike(dialect)
    new = statement.excluded
    changed = {name: new[name] for name in ("outcome", "at", "attempt", "since", "reason", "became")}
    return statement.on_conflict_do_update(
        index_elements=("message_id", "pipeline", "step"), set_=changed, where=new.attempt >= records.c.attempt
    )


def _insert_alike(dialect: str) -> Any:
    """Give an INSERT of the records that one decision made: they share all but the message's id."""
    shared = [column for column in records.c if column.name != "message_id"]
    values = select(given_texts("message_ids", dialect), *(bindparam(column.name, type_=column.type) for column in shared))
    values = values.where(text("true"))  # or SQLite takes what follows for a JOIN's ON
    return insert(records, dialect).from_select(["message_id", *(column.name for column in shared)], values)


def _literal(outcome: Outcome) -> ColumnElement[str]:
    """Give an outcome as a part of the statement: a parameter would be bound anew for each of its rows."""
    return literal_column(f"'{outcome.value}'")


def _alike(alike: Sequence[Record]) -> dict[str, Any]:
    one = alike[0]
    ids = list(dict.fromkeys(record.message_id for record in alike))  # PostgreSQL changes no row twice at once
    return {
        "message_ids": json.dumps(ids),
        "count": len(ids),
        "pipeline": one.pipeline,
        "step": one.step,
        "outcome": one.outcome.value,
        "at": to_number(one.at),
        "attempt": one.attempt,
        "since": None if one.since is None else to_number(one.since),
        "reason": clean(one.reason) if one.reason else "",
        "became": " ".join(one.became) or None,
    }


def _record(row: Sequence[Any]) -> Record:
    message_id, pipeline, step, outcome, at, attempt, since, reason, became = row
    return Record(
        message_id=message_id,
        pipeline=pipeline,
        step=step,
        outcome=Outcome(outcome),
        at=to_time(at),
        attempt=attempt,
        since=None if since is None else to_time(since),
        reason=reason,
        became=tuple(became.split()) if became else (),
    )


_AT_STEP: Final = Direct(_records_at_step)
_UPSERT: Final = Direct(_record_upsert)
_ANEW: Final = Direct(_record_anew)
