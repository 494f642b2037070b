"""How many decisions were made, hour by hour: what there is to know of the records without reading them.

Each settled batch adds to one row or two. A row tells how many decisions of a kind an hour saw (`decided`), and how many of
them were the first at their step and so added a record (`added`); later attempts change the record that is there.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, delete, func, select

from pipeline.store.direct import Direct
from pipeline.store.rows import Outcome
from pipeline.store.tables import insert, tallies, to_number

HOUR: Final = 3_600_000_000
"""Microseconds."""
_PLACE: Final = itemgetter("pipeline", "step", "outcome")
SHARDS: Final = 8
"""Rows among which PostgreSQL's writers spread: batches that end at the same moment do not wait for one another's commit."""


def add_tallies(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Count what `history.write_records` wrote. The last thing in a transaction: what it changes stays locked until the end."""
    decided: Counter[tuple[int, str, str, str]] = Counter()
    added: Counter[tuple[int, str, str, str]] = Counter()
    for row in rows:
        key, count = (row["at"] // HOUR * HOUR, *_PLACE(row)), row["count"]
        decided[key] += count
        added[key] += count if row["attempt"] == 1 else 0
    if decided:
        dialect = connection.dialect.name
        shard = random.randrange(SHARDS) if dialect == "postgresql" else 0  # noqa: S311 - spreads writers, guards nothing
        names = ("hour", "pipeline", "step", "outcome")
        counted = [
            {**dict(zip(names, key, strict=True)), "shard": shard, "decided": decided[key], "added": added[key]}
            for key in sorted(decided)  # one order for all: no deadlocks
        ]
        _UPSERT.run(connection, counted)


def sum_tallies(connection: Connection) -> dict[tuple[str, str, Outcome], int]:
    """Give the number of decisions by pipeline, step and outcome; those to hold are left out."""
    key = (tallies.c.pipeline, tallies.c.step, tallies.c.outcome)
    query = select(*key, func.sum(tallies.c.decided)).where(tallies.c.outcome != Outcome.HELD.value).group_by(*key)
    return {(pipeline, step, Outcome(outcome)): int(count) for pipeline, step, outcome, count in connection.execute(query)}


def oldest_within(connection: Connection, most: int, now: datetime) -> int | None:
    """Give the time since which about `most` records were added; None where there are no more than that.

    Within the hour in which it falls, the records count as spread evenly.
    """
    by_hour = select(tallies.c.hour, func.sum(tallies.c.added)).group_by(tallies.c.hour).order_by(tallies.c.hour.desc())
    newer = 0
    for hour, number in connection.execute(by_hour):
        added = int(number)
        if newer + added > most:
            end = max(hour, min(hour + HOUR, to_number(now)))
            return int(end - (end - hour) * (most - newer) // added)
        newer += added
    return None


def first_hour(connection: Connection) -> int | None:
    """Give the hour since which decisions are counted; None where there are none."""
    return connection.execute(select(func.min(tallies.c.hour))).scalar()


def purge_tallies(connection: Connection, before: datetime) -> None:
    """Forget the hours that ended before a time."""
    connection.execute(delete(tallies).where(tallies.c.hour <= to_number(before) - HOUR))


def _tally_upsert(dialect: str) -> Any:
    statement = insert(tallies, dialect)
    more = {name: tallies.c[name] + statement.excluded[name] for name in ("decided", "added")}
    return statement.on_conflict_do_update(index_elements=("hour", "pipeline", "step", "outcome", "shard"), set_=more)


_UPSERT: Final = Direct(_tally_upsert)
