"""What was decided about messages at each step: the rows of `records`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, or_, select, tuple_

from pipeline.store.rows import Outcome, Record
from pipeline.store.tables import chunks, clean, insert, records, to_number, to_time
from pipeline.store.waiting import count_held


def write_records(connection: Connection, new: Sequence[Record]) -> None:
    """Write each record unless the stored one is of a later attempt, or final and of the same."""
    if new:
        rows = [_record_row(record) for record in new]
        rows.sort(key=lambda row: (row["message_id"], row["pipeline"], row["step"]))  # one order for all: no deadlocks
        connection.execute(_record_upsert(connection.dialect.name), rows)


def read_records(connection: Connection, pipeline: str, step: str, message_ids: Sequence[str]) -> dict[str, Record]:
    """Give the records of these messages at a step."""
    found: dict[str, Record] = {}
    for some in chunks(message_ids):
        query = select(records).where(records.c.message_id.in_(some), records.c.pipeline == pipeline, records.c.step == step)
        found.update((row.message_id, _record(row)) for row in connection.execute(query))
    return found


def read_history(connection: Connection, message_id: str) -> list[Record]:
    """Give all records of a message, in order of time."""
    query = (
        select(records)
        .where(records.c.message_id == clean(message_id))
        .order_by(records.c.at, records.c.pipeline, records.c.step)
    )
    return [_record(row) for row in connection.execute(query)]


def count_records(connection: Connection) -> dict[tuple[str, str, Outcome], int]:
    """Count the records by pipeline, step and outcome; what is held is counted where it is held."""
    key = (records.c.pipeline, records.c.step, records.c.outcome)
    query = select(*key, func.count()).where(records.c.outcome != Outcome.HELD.value).group_by(*key)
    counts = {(pipeline, step, Outcome(outcome)): count for pipeline, step, outcome, count in connection.execute(query)}
    for (pipeline, step, _), count in count_held(connection).items():
        at = (pipeline, step, Outcome.HELD)
        counts[at] = counts.get(at, 0) + count
    return counts


def purge_records(connection: Connection, before: datetime, limit: int) -> int:
    """Delete up to `limit` records from before a time."""
    key = tuple_(records.c.message_id, records.c.pipeline, records.c.step)
    old = select(records.c.message_id, records.c.pipeline, records.c.step).where(records.c.at < to_number(before))
    return connection.execute(delete(records).where(key.in_(old.order_by(records.c.at).limit(limit)))).rowcount


@cache
def _record_upsert(dialect: str) -> Any:
    statement = insert(records, dialect)
    new = statement.excluded
    goes_on = or_(
        new.attempt > records.c.attempt,
        and_(
            new.attempt == records.c.attempt,
            records.c.outcome != Outcome.DELIVERED.value,
            records.c.outcome != Outcome.BURIED.value,
        ),
    )
    changed = {name: new[name] for name in ("outcome", "at", "attempt", "since", "reason")}
    return statement.on_conflict_do_update(index_elements=("message_id", "pipeline", "step"), set_=changed, where=goes_on)


def _record_row(record: Record) -> dict[str, Any]:
    return {
        "message_id": record.message_id,
        "pipeline": record.pipeline,
        "step": record.step,
        "outcome": record.outcome.value,
        "at": to_number(record.at),
        "attempt": record.attempt,
        "since": None if record.since is None else to_number(record.since),
        "reason": clean(record.reason),
    }


def _record(row: Row[Any]) -> Record:
    return Record(
        message_id=row.message_id,
        pipeline=row.pipeline,
        step=row.step,
        outcome=Outcome(row.outcome),
        at=to_time(row.at),
        attempt=row.attempt,
        since=None if row.since is None else to_time(row.since),
        reason=row.reason,
    )
