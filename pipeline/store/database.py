"""The way to the store's database: engines, transactions, and its errors in Siftbell's words."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pipeline.errors import ConfigError, TemporaryError
from pipeline.store.gathering import Gathering

T = TypeVar("T")

BUSY_SECONDS: Final = 5
"""How long a statement waits for another's lock before the store counts as away."""

_POSTGRES_OPTIONS: Final = {
    "connect_timeout": 3,
    "application_name": "siftbell",
    "tcp_user_timeout": 10_000,
    "options": f"-c lock_timeout={BUSY_SECONDS}s -c statement_timeout=15s -c idle_in_transaction_session_timeout=60s",
}
_MISSING: Final = {"42P01", "42703"}  # undefined table, undefined column
_NOT_ALLOWED: Final = "42501"
_WRITE: Final = "siftbell_write"


class StoreAway(TemporaryError):  # noqa: N818 -- named for what it says, as the errors it descends from say what comes next
    """The store's database is away, locked or full. The text names the place without the password."""


class Database:
    """A database, by URL: `sqlite:///FILE` or `postgresql+psycopg://…`. Opened when first used; safe with threads and after fork.

    `durable=False` is for what may be forgotten: a commit does not wait for the disk. Raises ConfigError for a URL
    that cannot be used, or whose driver is missing.
    """

    def __init__(self, url: str, *, durable: bool = True) -> None:
        self.url = _checked(url)
        self.file = Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None
        self._durable = durable
        self._inherited: list[Any] = []
        self._gate = ForkGate()
        self._gathering: Gathering[Any] = Gathering()
        try:
            self.engine = self._sqlite() if self.file else self._postgres()
        except ImportError as error:
            raise ConfigError('the store needs: pip install "siftbell[postgres]"') from error
        self._reader = self.engine if self.file else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        """Of a server, statements that only read see what is committed when each begins, in a transaction or without."""
        self._driver = self.engine.dialect.loaded_dbapi
        _databases.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.place}>"

    @property
    def place(self) -> str:
        """Where the database is, without a password."""
        if self.file:
            return str(self.file)
        return f"postgresql at {self.url.host or 'localhost'}:{self.url.port or 5432}/{self.url.database or ''}"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection to read from. Raises StoreAway."""
        with self._gate, self._translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection with a transaction that is committed at the end. Raises StoreAway; then nothing was written."""
        writing = {_WRITE: True}
        with self._gate, self._translated(), self.engine.connect().execution_options(**writing) as connection, connection.begin():
            yield connection

    def write_together(self, rows: T, write: Callable[[Connection, Sequence[T]], None]) -> None:
        """Have rows written, with those that other threads bring while a transaction of this kind is under way, in the next one.

        Raises StoreAway, and what `write` raises for these rows alone; then nothing of them was written.
        """

        def write_all(gathered: Sequence[T]) -> None:
            with self.writing() as connection:
                write(connection, gathered)

        self._gathering.do(rows, write_all)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def before_fork(self) -> None:
        """Close the connections to a SQLite file: its locks do not survive a fork, and a child would think it held them."""
        self._gate.close()
        if self.file:
            self.engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections to a server alone, and go on with new ones."""
        self._inherited.append(self.engine.pool)  # or they would be closed when collected, which the parent would notice
        self.engine.dispose(close=False)
        self._gate = ForkGate()
        self._gathering = Gathering()

    def _sqlite(self) -> Engine:
        engine = create_engine(self.url, hide_parameters=True, pool_timeout=BUSY_SECONDS, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "do_connect", self._file_is_there)
        event.listen(engine, "connect", self._sqlite_connected)
        event.listen(engine, "begin", _sqlite_begin)
        return engine

    def _postgres(self) -> Engine:
        options = dict(_POSTGRES_OPTIONS)
        if not self._durable:
            options["options"] = f"{options['options']} -c synchronous_commit=off"
        return create_engine(self.url, hide_parameters=True, pool_timeout=BUSY_SECONDS, pool_pre_ping=True, connect_args=options)

    def _file_is_there(self, *_: Any) -> None:
        """Keep SQLite from making an empty file, for everyone to read, where the store's is gone."""
        if self.file and not self.file.exists():
            raise sqlite3.OperationalError("no such file; `siftbell run` makes it")

    def _sqlite_connected(self, connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's guess
        connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeoutError) as error:
            if (found := self._translate(error)) is None:
                raise
            raise found from error
        except self._driver.Error as error:
            if (found := self._translate(DBAPIError.instance(None, None, error, self._driver.Error))) is None:
                raise
            raise found from error

    def _translate(self, error: SQLAlchemyError) -> Exception | None:
        """Give the error to raise instead; None for one that tells of a bug."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        lines = str(cause).splitlines() or [type(cause).__name__]
        words = lines[0].replace(str(self.url.password), "***") if self.url.password else lines[0]
        state = getattr(cause, "sqlstate", None)
        if state in _MISSING or words.startswith(("no such table", "no such column")):
            return ConfigError(f"the store ({self.place}) lacks its tables: run `siftbell db upgrade`")
        if state == _NOT_ALLOWED:
            return ConfigError(f"the store ({self.place}): {words}")
        if isinstance(error, DatabaseError) and isinstance(error, (DataError, IntegrityError, ProgrammingError)):
            return None
        return StoreAway(f"the store ({self.place}) is away: {words}")


def _sqlite_begin(connection: Connection) -> None:
    # A transaction that first reads and then writes would fail at once when another wrote in between.
    driver = cast("sqlite3.Connection", connection.connection.dbapi_connection)
    driver.execute("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITE) else "BEGIN")


def _checked(url: str) -> URL:
    try:
        found = make_url(re.sub("^postgres:", "postgresql:", url))
    except ArgumentError:
        found = None
    backend = found.get_backend_name() if found else ""
    if found and backend == "sqlite" and found.database not in (None, "", ":memory:"):
        return found.set(drivername="sqlite+pysqlite")
    if found and backend == "postgresql":
        return found.set(drivername="postgresql+psycopg")
    raise ConfigError("the store's URL: sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE is expected")


class ForkGate:
    """Lets a fork wait for the transactions of other threads, and new transactions for the fork."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in, and wait until all are out; for no longer than a transaction may wait for a lock."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._inside, timeout=BUSY_SECONDS)

    def open(self) -> None:
        """Let everybody in again."""
        with self._changed:
            self._closed = False
            self._changed.notify_all()


_databases: WeakSet[Database] = WeakSet()


def _before_fork() -> None:
    for database in _databases:
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in _databases:
        database.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for database in _databases:
        database.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
