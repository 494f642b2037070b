"""Stores with much in them: filled straight into the tables, as what fills them in life takes days."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from benchmarks.siftbell import as_message
from pipeline.store import Store
from pipeline.store.tables import to_json, to_number

PLACES: Final = [(f"team-{number:03d}", "hook") for number in range(100)]
"""The pipelines and steps among which everything is spread."""
FIRST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When the first is due, or was written; each of the others comes a millisecond after the one before."""
_PIPELINE: Final = "printf('team-%03d', n % 100)"
_ID: Final = "printf('019b75a7-e800-7000-8000-%012x', n)"
_NUMBERS: Final = "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count - 1)"


def end(count: int) -> datetime:
    """Give the time after the last of so many."""
    return FIRST + timedelta(milliseconds=count)


def with_held(path: Path, count: int) -> Store:
    """Make a store that holds messages, each to be delivered once more."""
    message = as_message(0)
    before, behind = to_json(message).split(message.id)
    with _filling(path) as connection:
        connection.execute(
            f"{_NUMBERS} INSERT INTO held (pipeline, step, message_id, why, due, ready, key, attempt, revision, message)"  # noqa: S608 - our own text
            f" SELECT {_PIPELINE}, 'hook', {_ID}, 'retry', :first + n * 1000, :first + n * 1000, '', 2, '',"
            f" :before || {_ID} || :behind FROM numbers",
            {"count": count, "first": to_number(FIRST), "before": before, "behind": behind},
        )
    return Store(f"sqlite:///{path}")


def with_records(path: Path, count: int) -> Store:
    """Make a store that has records of deliveries."""
    with _filling(path) as connection:
        connection.execute("DROP INDEX records_at")  # one that is made of all rows at once is made in a fifth of the time
        connection.execute(
            f"{_NUMBERS} INSERT INTO records (message_id, pipeline, step, outcome, at, attempt, reason)"  # noqa: S608 - our own text
            f" SELECT {_ID}, {_PIPELINE}, 'hook', 'delivered', :first + n * 1000, 1, '' FROM numbers",
            {"count": count, "first": to_number(FIRST)},
        )
        connection.execute("CREATE INDEX records_at ON records (at)")
    return Store(f"sqlite:///{path}")


@contextmanager
def _filling(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(Store(f"sqlite:///{path}")) as store:
        store.migrate()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
