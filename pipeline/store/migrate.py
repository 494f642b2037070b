"""Brings the database's tables to what this version of the code knows; several processes may do so at once."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from pipeline.errors import ConfigError
from pipeline.store.database import BUSY_SECONDS, Database, StoreAway

_SCRIPTS: Final = Path(__file__).with_name("migrations")
_LOCK: Final = 0x51F7BE11
"""The advisory lock that migrations hold on PostgreSQL."""


def migrate(database: Database) -> None:
    """Make or change the tables. Raises ConfigError where they are newer than this version of the code, StoreAway."""
    if database.file:
        _prepare_file(database, database.file)
    with database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _upgrade(database, connection)


def _upgrade(database: Database, connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_heads()
    if found == tuple(scripts.get_heads()):
        return
    for revision in found:
        try:
            scripts.get_revision(revision)
        except CommandError as error:
            raise ConfigError(
                f"the store ({database.place}) was made by a newer version of Siftbell: install that one, or use another store"
            ) from error
    command.upgrade(config, "head")


def _prepare_file(database: Database, file: Path) -> None:
    """Make the file, for its owner alone, and have it write ahead."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file that is there is never opened here: closing it would end this process's own locks on it.
        with suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreAway(f"the store ({database.place}) cannot be made: {error.strerror}") from error
    try:
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
            _write_ahead(connection, time.monotonic() + BUSY_SECONDS)
    except sqlite3.Error as error:
        raise StoreAway(f"the store ({database.place}) is away: {error}") from error


def _write_ahead(connection: sqlite3.Connection, end: float) -> None:
    """Switch to the write-ahead log; SQLite refuses that at once, without waiting, while another process is at it."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return
