"""Brings the database's tables to what this version of the code knows; several processes may do so at once."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

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
        if not _is_current(connection):
            _upgrade(database, connection)


def _is_current(connection: Connection) -> bool:
    """Say whether there is nothing to do: as alembic would, which takes 23 MB and a third of a second."""
    newest = max(script.name for script in (_SCRIPTS / "versions").glob("[0-9]*.py")).partition("_")[0]
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [newest]


def _upgrade(database: Database, connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - see `_is_current`
    from alembic.config import Config  # noqa: PLC0415 - as above
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - as above
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above
    from alembic.util import CommandError  # noqa: PLC0415 - as above

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
