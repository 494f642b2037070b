"""What producers have noted of the requests they were sent: the rows of `notes`, one for each name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, select

from pipeline.store.tables import clean, insert, notes


def write_notes(connection: Connection, pipeline: str, producer: str, new: Mapping[str, str]) -> None:
    """Write each text over what stood there under its name."""
    rows = [
        {"pipeline": pipeline, "producer": producer, "name": clean(name), "text": clean(text)}
        for name, text in sorted(new.items())  # one order for all: no deadlocks
    ]
    if rows:
        connection.execute(_upsert(connection.dialect.name), rows)


def drop_notes(connection: Connection, pipeline: str, producer: str, old: Mapping[str, str]) -> None:
    """Delete notes whose text is still this one."""
    here = and_(notes.c.pipeline == pipeline, notes.c.producer == producer)
    this = and_(here, notes.c.name == bindparam("old_name"), notes.c.text == bindparam("old_text"))
    rows = [{"old_name": name, "old_text": text} for name, text in sorted(old.items())]
    if rows:
        connection.execute(delete(notes).where(this), rows)


def read_notes(connection: Connection, pipeline: str, producer: str) -> dict[str, str]:
    """Give all that a producer has noted, by name."""
    here = select(notes.c.name, notes.c.text).where(notes.c.pipeline == pipeline, notes.c.producer == producer)
    return {row.name: row.text for row in connection.execute(here)}


@cache
def _upsert(dialect: str) -> Any:
    statement = insert(notes, dialect)
    return statement.on_conflict_do_update(
        index_elements=("pipeline", "producer", "name"), set_={"text": statement.excluded.text}
    )
