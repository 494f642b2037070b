"""A store on each of the databases, and processes that use it too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from pipeline import Message
from pipeline.store import DeadLetter, Held, Outcome, Record, Store, Why
from pipeline.store.tables import metadata

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[3]

SPAWNED = """
import sys
from datetime import UTC, datetime, timedelta
from pipeline.store import Store
store = Store(sys.argv[1])
now = datetime.fromisoformat(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
"""


class Make:
    """Rows with everything that a test does not speak of."""

    now = NOW

    def message(self, **fields: Any) -> Message:
        return Message(**{"source": "test", "time": NOW} | fields)

    def record(self, message_id: str, outcome: Outcome = Outcome.HELD, **fields: Any) -> Record:
        return Record(**{"message_id": message_id, "pipeline": "p", "step": "s", "outcome": outcome, "at": NOW} | fields)

    def held(self, message: Message | None = None, **fields: Any) -> Held:
        return Held(**{"message": message or self.message(), "pipeline": "p", "step": "s", "why": Why.RETRY, "due": NOW} | fields)

    def dead(self, message: Message | None = None, **fields: Any) -> DeadLetter:
        return DeadLetter(
            **{"message": message or self.message(), "pipeline": "p", "step": "s", "error": "no", "at": NOW} | fields
        )


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture(scope="session")
def postgres_url(new_postgres: Callable[[], str]) -> str:
    """One database for the tests that only need empty tables."""
    url = new_postgres()
    store = Store(url)
    store.migrate()
    store.close()
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'data' / 'store.db'}"
    return request.getfixturevalue("new_postgres")()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with empty tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    found = request.getfixturevalue("postgres_url")
    engine = create_engine(found)
    with engine.begin() as connection:
        for table in metadata.tables.values():
            connection.execute(table.delete())  # much quicker than TRUNCATE, which waits for the disk
    engine.dispose()
    return found


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    made.migrate()
    yield made
    made.close()


@contextmanager
def _spawned(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-c", SPAWNED + code, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def spawned() -> Callable[..., Any]:
    """Starts a process with `store` and `now` that goes on with the given code when a line is written to it."""
    return _spawned
