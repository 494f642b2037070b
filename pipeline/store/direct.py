"""Statements that every batch needs: SQLAlchemy compiles each once, and the driver runs it.

An execution by SQLAlchemy takes ten times as long as one look-up by key in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPICursor


class Direct:
    """A statement that takes its parameters by name, as the driver knows their values: no type of SQLAlchemy's converts them.

    `build` gives it for a dialect, by the dialect's name. It runs in the connection's transaction, if there is one, and begins
    none. Raises the driver's own errors.
    """

    def __init__(self, build: Callable[[str], Any]) -> None:
        self._build = build
        self._texts: dict[str, str] = {}

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Run it, and give what it found."""
        with _cursor(connection) as cursor:
            cursor.execute(self._text(connection), parameters)
            return cursor.fetchall()

    def run(self, connection: Connection, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each of these parameters."""
        with _cursor(connection) as cursor:
            for one in parameters:
                cursor.execute(self._text(connection), one)

    def _text(self, connection: Connection) -> str:
        dialect = connection.dialect
        if dialect.name not in self._texts:
            made: Any = type(dialect)  # each of them takes it, but their base does not say so
            by_name = made(paramstyle="pyformat" if dialect.name == "postgresql" else "named")
            self._texts[dialect.name] = str(self._build(dialect.name).compile(dialect=by_name))
        return self._texts[dialect.name]


@contextmanager
def _cursor(connection: Connection) -> Iterator[DBAPICursor]:
    """Give a cursor of the driver's; a connection that turns out to be lost is not used again."""
    driver = connection.connection
    cursor = driver.cursor()
    try:
        yield cursor
    except connection.dialect.loaded_dbapi.Error as error:
        if connection.dialect.is_disconnect(error, driver, cursor):
            connection.invalidate(error)
        raise
    finally:
        cursor.close()
