"""Which queues the configuration has had: the rows of `queues`, one for each name."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, select

from pipeline.store.tables import clean, insert, queues, to_number

KEPT: Final = timedelta(days=30)
"""How long a queue is remembered that the configuration does not have any more."""


def remember(connection: Connection, names: Collection[str], now: datetime) -> set[str]:
    """Note that these queues are in use now, and give all that were within the time for which they are remembered."""
    rows = [{"name": clean(name), "used": to_number(now)} for name in sorted(names)]
    if rows:
        connection.execute(_upsert(connection.dialect.name), rows)
    return set(connection.execute(select(queues.c.name).where(queues.c.used > to_number(now - KEPT))).scalars())


@cache
def _upsert(dialect: str) -> Any:
    statement = insert(queues, dialect)
    return statement.on_conflict_do_update(index_elements=("name",), set_={"used": statement.excluded.used})
