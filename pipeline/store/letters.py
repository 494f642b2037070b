"""What was given up: the rows of `dead_letters`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, func, select, tuple_

from pipeline.store.rows import DeadLetter
from pipeline.store.tables import clean, dead_letters, insert, to_json, to_message, to_number, to_time


def write_dead(connection: Connection, new: Sequence[DeadLetter]) -> None:
    """Write each dead letter, over the earlier one of its message and step."""
    if new:
        rows = [_dead_row(letter) for letter in new]
        rows.sort(key=lambda row: (row["message_id"], row["pipeline"], row["step"]))
        connection.execute(_dead_upsert(connection.dialect.name), rows)


def list_dead(connection: Connection, pipeline: str | None, step: str | None, limit: int, before: str | None) -> list[DeadLetter]:
    """Give dead letters, newest first."""
    place = (dead_letters.c.at, dead_letters.c.message_id, dead_letters.c.pipeline, dead_letters.c.step)
    query = select(dead_letters).order_by(*(column.desc() for column in place)).limit(limit)
    if pipeline is not None:
        query = query.where(dead_letters.c.pipeline == clean(pipeline))
    if step is not None:
        query = query.where(dead_letters.c.step == clean(step))
    if before is not None:
        query = query.where(tuple_(*place) < tuple_(*_place(before)))
    return [_dead(row) for row in connection.execute(query)]


def read_dead(connection: Connection, message_id: str) -> list[DeadLetter]:
    """Give the dead letters of a message, oldest first."""
    query = select(dead_letters).where(dead_letters.c.message_id == clean(message_id))
    return [_dead(row) for row in connection.execute(query.order_by(dead_letters.c.at, dead_letters.c.step))]


def count_dead(connection: Connection) -> dict[tuple[str, str], int]:
    """Count the dead letters by pipeline and step."""
    key = (dead_letters.c.pipeline, dead_letters.c.step)
    return {(pipeline, step): count for pipeline, step, count in connection.execute(select(*key, func.count()).group_by(*key))}


def _place(before: str) -> tuple[Any, ...]:
    try:
        at, message_id, pipeline, step = clean(before).split("/", 3)
        return to_number(datetime.fromisoformat(at)), message_id, pipeline, step
    except (ValueError, TypeError, OverflowError):
        raise ValueError("a dead letter's place is expected") from None


@cache
def _dead_upsert(dialect: str) -> Any:
    statement = insert(dead_letters, dialect)
    changed = {name: statement.excluded[name] for name in ("at", "attempts", "error", "traceback", "message")}
    return statement.on_conflict_do_update(index_elements=("message_id", "pipeline", "step"), set_=changed)


def _dead_row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "message_id": letter.message.id,
        "pipeline": letter.pipeline,
        "step": letter.step,
        "at": to_number(letter.at),
        "attempts": letter.attempts,
        "error": clean(letter.error),
        "traceback": clean(letter.traceback),
        "message": to_json(letter.message),
    }


def _dead(row: Row[Any]) -> DeadLetter:
    return DeadLetter(
        message=to_message(row.message),
        pipeline=row.pipeline,
        step=row.step,
        error=row.error,
        traceback=row.traceback,
        attempts=row.attempts,
        at=to_time(row.at),
    )
