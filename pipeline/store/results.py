"""What other systems say later of a delivery, by the reference that they gave it: the rows of `results`."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, or_, select, tuple_

from pipeline.store.tables import clean, insert, results, to_number, to_time


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one delivery: `arrived` is None as long as it may still do so."""

    pipeline: str
    step: str
    reference: str
    message_id: str
    """Empty where the other side said something of it before the consumer noted which message it is."""
    note: str = ""
    """What the consumer said of it."""
    arrived: bool | None = None
    text: str = ""
    """What the other side said of it since."""
    at: datetime


def note(connection: Connection, new: Result) -> None:
    """Note which message a reference stands for, and the consumer's note; what the other side said before stays."""
    statement = insert(results, connection.dialect.name).values(_row(new))
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=_KEY, set_={name: statement.excluded[name] for name in ("message_id", "note")}
        )
    )


def tell(connection: Connection, new: Result) -> None:
    """Write what was said of a reference; what was final is not changed by what is not."""
    statement = insert(results, connection.dialect.name).values(_row(new))
    said = {name: statement.excluded[name] for name in ("arrived", "text", "at")}
    final = or_(results.c.arrived.is_(None), statement.excluded.arrived.is_not(None))
    connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=said, where=final))


def read(connection: Connection, message_id: str) -> list[Result]:
    """Give what is known of a message's deliveries, by pipeline, step and reference."""
    query = select(results).where(results.c.message_id == clean(message_id))
    found = connection.execute(query.order_by(results.c.pipeline, results.c.step, results.c.reference))
    return [
        Result(
            pipeline=row.pipeline,
            step=row.step,
            reference=row.reference,
            message_id=row.message_id,
            note=row.note,
            arrived=row.arrived,
            text=row.text,
            at=to_time(row.at),
        )
        for row in found
    ]


def purge(connection: Connection, before: datetime, limit: int) -> None:
    """Delete up to `limit` of them that were last changed before a time."""
    key = (results.c.pipeline, results.c.step, results.c.reference)
    old = select(*key).where(results.c.at < to_number(before)).limit(limit).with_for_update(skip_locked=True)
    connection.execute(delete(results).where(tuple_(*key).in_(old)))


def _row(one: Result) -> dict[str, object]:
    return {
        "pipeline": one.pipeline,
        "step": one.step,
        "reference": clean(one.reference),
        "message_id": one.message_id,
        "note": clean(one.note),
        "arrived": one.arrived,
        "text": clean(one.text),
        "at": to_number(one.at),
    }


_KEY = ("pipeline", "step", "reference")
