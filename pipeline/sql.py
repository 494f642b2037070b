"""SQL out: the way of plugins to databases of others. URLs and drivers, limits on time and rows, and what an error means."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Final
from urllib.parse import quote

from pydantic import AfterValidator, SecretStr
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Executable,
    NullPool,
    TextClause,
    create_engine,
    event,
    literal,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pipeline.compiled import Compiled
from pipeline.errors import PermanentError, TemporaryError
from pipeline.secrecy import masker
from pipeline.text import shorten

CONNECT_SECONDS: Final = 10
_DRIVERS: Final = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""What a URL that names no driver means: the drivers that our extras install."""
_EXTRAS: Final = {"psycopg": "postgres", "pymysql": "mysql"}
_MAY_PASS: Final = {"08", "40", "53", "55", "57", "58", "70"}
"""Classes of SQLSTATE: connection, rollback (deadlock), resources, locks, shutdown, system; 70 is MariaDB's timeout."""
_READ_ONLY: Final = "25006"
"""PostgreSQL's SQLSTATE of a server that was, or is about to become, the standby of another."""
_MYSQL_MAY_PASS: Final = frozenset(
    {1021, 1040, 1047, 1053, 1114, 1180, 1203, 1205, 1206, 1213, 1226, 1290, 1317, 1836, 1927, 1969, 3024, 3572}
)
"""Numbers of the server's errors, for those that bear no better SQLSTATE than HY000; from 2000 on they are the client's."""
_SQLITE_FOR_GOOD: Final = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
}
_FOR_GOOD: Final = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
_PLACE: Final = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
_LONGEST: Final = 400
_LONGEST_TEXT: Final = 65_536


def _usable(secret: SecretStr) -> SecretStr:
    """Refuse what is no database's URL, and one whose driver is missing; never repeats what it holds."""
    url = _read(secret)
    try:
        dialect = url.get_dialect()
        dialect.import_dbapi()
    except NoSuchModuleError:
        raise ValueError("what stands before :// is no database that SQLAlchemy knows: is its package installed?") from None
    except ImportError as error:
        extra = _EXTRAS.get(url.get_driver_name())
        package = f'siftbell[{extra}]"' if extra else f'{error.name}", or whatever package has this module'
        raise ValueError(f'the driver of this database is missing: pip install "{package}') from None
    if dialect.is_async:
        raise ValueError("this driver is an asynchronous one: leave it out of the URL, or name another")
    return secret


SqlUrl = Annotated[SecretStr, AfterValidator(_usable)]
"""The URL of a database, as SQLAlchemy writes it; its driver is installed. PostgreSQL, MySQL and MariaDB need name none."""


class Statement(Compiled):
    r"""A statement in SQL, usable as the type of a plugin's option: `:name` is the place of a value, `\:` a colon.

    A colon with a digit behind it, or with a letter or another colon before it, is one anyway (`12:30`, `x::date`).
    """

    about = "A statement in SQL; :name is the place of a value."
    min_length = 1

    def __init__(self, text: str) -> None:
        super().__init__(text)
        found = (name for name in _PLACE.findall(text) if not name[0].isdigit())
        self.names = tuple(dict.fromkeys(found))

    def bound(self) -> TextClause:
        """Give what `SqlDatabase` executes."""
        own = self.text.strip().rstrip("; \n")
        return text(_PLACE.sub(lambda found: found[0] if found[1] in self.names else f"\\{found[0]}", own))


class SqlDatabase:
    """A database of others: connected to when it is used, by several threads at once; errors come as what happens next.

    A statement may take as long as `timeout`; that and read-only transactions are told to PostgreSQL, MySQL, MariaDB and
    SQLite. Whatever is read, from any database, is rolled back.
    """

    def __init__(self, url: SecretStr, *, timeout: timedelta, read_only: bool = False) -> None:
        self._url = _read(url)
        self._seconds = timeout.total_seconds()
        self._read_only = read_only
        self._mask = masker([self._url.password] if self._url.password else [])
        self.dialect: str = self._url.get_backend_name().replace("mariadb", "mysql")
        """`postgresql`, `mysql` (MariaDB too), `sqlite` or another of SQLAlchemy's."""
        self._engine = self._made()

    @property
    def place(self) -> str:
        """Where the database is: its URL without user, password and options."""
        url = self._url
        return URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database).render_as_string()

    def probe(self) -> str:
        """Ask for a constant, and give the line for a plugin's `probe`. Raises `TemporaryError` or `PermanentError`."""
        with self.transaction() as connection:
            connection.execute(select(literal(1)))
            version = getattr(connection.dialect, "server_version_info", None) or ()
        return f"{self._url.get_backend_name()} {'.'.join(map(str, version[:3]))}, database {self._url.database}"

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def read(self, query: Executable, values: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
        """Give the first `most` rows by column name; raises `TemporaryError` or `PermanentError`."""
        with self.transaction() as connection:
            if self.dialect == "mysql":  # the driver would fetch the whole result
                connection.exec_driver_sql(f"SET sql_select_limit = {most}")
            elif self.dialect == "postgresql":  # as above: a cursor on the server
                query = query.execution_options(stream_results=True)
            with closing(connection.execute(query, values)) as result:
                if not result.returns_rows:
                    raise PermanentError(f"{self.place}: the query gives no rows: a SELECT is expected")
                return [dict(row) for row in result.mappings().fetchmany(most)]

    def write(self, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute a statement for each row, in one transaction: for all or, where it raises, for none."""
        with self.transaction() as connection:
            connection.execute(statement, rows)
            connection.commit()

    @staticmethod
    def plain(value: Any, longest: int = _LONGEST_TEXT) -> Any:
        """Give a column's value as JSON can hold it: the same for the same value, whatever the session's time zone.

        Times are RFC 3339, intervals seconds, bytes hexadecimal. Texts have no NUL characters and end, with a mark, at `longest`.
        Numbers that a reader of JSON might not read as what they are, are texts, as is all that JSON does not know.
        """
        if isinstance(value, Mapping):
            return {SqlDatabase.plain(str(name), longest): SqlDatabase.plain(inner, longest) for name, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [SqlDatabase.plain(inner, longest) for inner in value]
        found = _scalar(value)
        if not isinstance(found, str):
            return found
        return shorten(found.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode(), longest)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection in a transaction that is rolled back unless committed; translates what SQLAlchemy raises."""
        try:
            connection = self._engine.connect()
        except SQLAlchemyError as error:  # whatever the reason, even a wrong password: nothing is wrong with a message
            raise TemporaryError(self._told(error)) from None
        try:
            with connection:
                self._begin(connection)
                yield connection
        except SQLAlchemyError as error:
            raise (TemporaryError if _may_pass(error) else PermanentError)(self._told(error)) from None

    def _made(self) -> Engine:
        own = self._connect_arguments()
        arguments = {name: value for name, value in own.items() if name not in self._url.query}
        kept: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 2}  # between two reads there are minutes
        pool = {"poolclass": NullPool} if self._read_only or self.dialect == "sqlite" else kept
        if self.dialect != "sqlite":
            return create_engine(self._url, connect_args=arguments, hide_parameters=True, **pool)
        engine = create_engine(
            _sqlite_url(self._url, "ro" if self._read_only else "rw"), connect_args=arguments, hide_parameters=True, **pool
        )
        event.listen(engine, "connect", self._sqlite_connected)
        return engine

    def _connect_arguments(self) -> dict[str, Any]:
        patience = int(self._seconds) + CONNECT_SECONDS
        arguments: dict[str, dict[str, Any]] = {
            "psycopg": {
                "connect_timeout": CONNECT_SECONDS,
                "application_name": "siftbell",
                "keepalives_idle": 30,  # a server that is gone without a word is noticed within a minute
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "tcp_user_timeout": 60_000,
            },
            "pymysql": {"connect_timeout": CONNECT_SECONDS, "read_timeout": patience, "write_timeout": patience},
            "pysqlite": {"timeout": min(self._seconds, CONNECT_SECONDS)},
        }
        return arguments.get(self._url.get_driver_name(), {})

    def _sqlite_connected(self, connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun in `_begin`, not by the driver's guess
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        end = monotonic() + self._seconds  # a connection lives as long as its one transaction
        connection.set_progress_handler(lambda: monotonic() > end, 10_000)

    def _begin(self, connection: Connection) -> None:
        milliseconds = max(1, round(self._seconds * 1000))
        begin: list[str] = []
        if self.dialect == "postgresql":
            begin = ["SET TRANSACTION READ ONLY"] if self._read_only else ["SET LOCAL timezone = 'UTC'"]
            begin.append(f"SET LOCAL statement_timeout = {milliseconds}")
        elif self.dialect == "mysql":
            mariadb = getattr(connection.dialect, "is_mariadb", False)
            limit = f"max_statement_time = {milliseconds / 1000}" if mariadb else f"max_execution_time = {milliseconds}"
            begin = [f"SET {limit}", f"SET innodb_lock_wait_timeout = {max(1, round(self._seconds))}"]
            begin.append("START TRANSACTION READ ONLY" if self._read_only else "SET time_zone = '+00:00'")
        elif self.dialect == "sqlite":
            begin = ["PRAGMA query_only = ON", "BEGIN"] if self._read_only else ["BEGIN IMMEDIATE"]
        for statement in begin:
            connection.exec_driver_sql(statement)

    def _told(self, error: SQLAlchemyError) -> str:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        words = str(cause)
        if len(cause.args) == 2 and isinstance(cause.args[0], int):
            words = f"{cause.args[1]} ({cause.args[0]})"
        return f"{self.place}: {shorten(' '.join(self._mask(words).split()), _LONGEST)}"


def _read(secret: SecretStr) -> URL:
    try:
        url = make_url(secret.get_secret_value())
        return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    except (ArgumentError, ValueError):
        text = "the URL of a database is expected, such as postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:////FILE"
        raise ValueError(f"{text}; odd characters in a password are written as %XX") from None


def _sqlite_url(url: URL, mode: str) -> URL:
    """Let SQLite open a file that is there, and make none where there is none."""
    name = url.database or ""
    if name in ("", ":memory:") or name.startswith("file:"):
        return url
    path = quote(str(Path(name).absolute()))
    return url.set(database=f"file:{path}").update_query_dict({"mode": mode, "uri": "true"})


def _may_pass(error: SQLAlchemyError) -> bool:
    """Say whether a statement that failed may succeed later."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeoutError)
    if error.connection_invalidated:
        return True
    cause: Any = error.orig
    if (code := getattr(cause, "sqlite_errorcode", None)) is not None:
        return code & 0xFF not in _SQLITE_FOR_GOOD
    if (state := getattr(cause, "sqlstate", None)) and state != "HY000":
        return state[:2] in _MAY_PASS or state == _READ_ONLY
    number = cause.args[0] if cause is not None and cause.args else None
    if isinstance(number, int):
        return number in _MYSQL_MAY_PASS or 2000 <= number < 3000
    return not isinstance(error, _FOR_GOOD)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float, Decimal)):
        return _number(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return bytes(value).hex() if isinstance(value, (bytes, bytearray, memoryview)) else str(value)


def _number(value: float | Decimal) -> Any:
    if isinstance(value, int):
        exact = -(2**63) <= value < 2**64
    elif isinstance(value, float):
        exact = isfinite(value)
    elif value.is_finite() and value == value.to_integral_value() and abs(value) < 2**53:
        return int(value)
    elif exact := value.is_finite() and Decimal(repr(float(value))) == value:
        return float(value)
    return value if exact else str(value)
