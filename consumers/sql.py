r"""Writes messages into a table of a database: a row for each, or the newest state of each key.

`url` is SQLAlchemy's: `postgresql://` (needs `siftbell[postgres]`), `mysql://` and `mariadb://` (`siftbell[mysql]`),
`sqlite:////FILE`, and any other database whose SQLAlchemy package is installed. A table that takes all there is:

    CREATE TABLE messages (
        id CHAR(36) PRIMARY KEY, source VARCHAR(255), type VARCHAR(60), time TIMESTAMP, title VARCHAR(255), text TEXT,
        severity VARCHAR(20), status VARCHAR(20), labels TEXT, "key" VARCHAR(255), url TEXT, data TEXT)

Without `columns` each field of a message goes into the column of its name, where the table has one. With `columns` you say
what goes where: a field, a part of one (`labels.team`, `data.order.id`; NULL where it is missing), or a template.

```yaml
name: state-of-alerts
producers:
  - prometheus
consumers:
  - sql:
      url: "${STATE:-postgresql://writer@db.example.com/ops}"
      table: alerts
      columns: {fingerprint: key, title: title, status: status, since: time, team: labels.team, alert: data, note: "{{ text }}"}
      upsert: [fingerprint]
    ordered: true
```

With `upsert` a row that has these columns' values already is updated; they need a unique key. (MySQL and MariaDB update
where any unique key is met.) With `ordered: true` an older message never overwrites a newer one. Where `id` is written into
a column with a unique key, a message that comes again after a crash is written once.

Instead of `table`, `statement` is executed for each message; its places are the names of `columns`, or fields:

```yaml
name: acknowledgements
producers:
  - http
consumers:
  - sql:
      url: sqlite:////var/lib/ops/ops.db
      statement: UPDATE tickets SET state = :state, seen = seen + 1 WHERE number = :ticket
      columns: {ticket: data.ticket, state: "{{ status | upper }}"}
```

Up to 500 rows are written in one transaction. Where the database refuses a row (a constraint, a value), that message alone
goes to the dead letters, with the reason, and the others are written. A database that is away, a login that fails, a
deadlock, a lock and a statement longer than `timeout` are tried again. A text longer than its column is cut, with a mark;
`id` and what `upsert` names then end in a hash. Objects and lists are JSON, times UTC; NUL characters are replaced, as not
all databases take them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, Final, Self

import msgspec
from pydantic import AfterValidator, Field, model_validator
from sqlalchemy import Enum, Executable, String, TableClause, column, insert, inspect, select, table
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import NoSuchTableError

from pipeline import (
    FIELDS,
    BatchConsumer,
    Config,
    ConfigError,
    Duration,
    Message,
    PermanentError,
    SqlDatabase,
    SqlUrl,
    Statement,
    Template,
    TemporaryError,
    shorten,
    shorten_key,
)

_BYTES: Final = {"TINYTEXT": 2**8 - 1, "TEXT": 2**16 - 1, "MEDIUMTEXT": 2**24 - 1}
"""What MySQL's texts hold, which its catalogue does not say."""
_ENDLESS: Final = 2**31

Failures = dict[str, TemporaryError | PermanentError]


def _source(text: str) -> str:
    """Refuse what is neither a field, nor a part of one, nor a template."""
    if "{{" in text or "{%" in text:
        Template(text)
        return text
    name, dot, rest = text.partition(".")
    if name not in FIELDS or (dot and (name not in ("labels", "data") or not rest)):
        close = get_close_matches(name, FIELDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "a constant is written as a template: {{ 'text' }}"
        raise ValueError(f"neither a field of a message, nor a template; {hint}")
    return text


class SqlConfig(Config):
    """The options of `sql`."""

    url: SqlUrl = Field(description="The database, as SQLAlchemy writes it. Kept secret, as it may hold a password.")
    table: str | None = Field(default=None, min_length=1, description="The table, or SCHEMA.TABLE.")
    columns: dict[str, Annotated[str, AfterValidator(_source)]] = Field(
        default_factory=dict, description="What goes into each column: a field such as `title` or `labels.team`, or a template."
    )
    upsert: list[str] = Field(default_factory=list, description="Columns with a unique key: a row that has them is updated.")
    statement: Statement | None = Field(default=None, description="In place of `table`: what is executed for each message.")
    timeout: Duration = Field(default=timedelta(seconds=30), description="How long a statement may take.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.table is None) == (self.statement is None):
            raise ValueError("give either `table` or `statement`")
        if self.statement is None:
            _all_in(self.upsert, self.columns or self.upsert, "upsert: `columns` has no '{}'")
            return self
        if self.upsert:
            raise ValueError("upsert: it goes with `table`; write it into the statement")
        _all_in(self.statement.names, self.columns or FIELDS, "statement: nothing stands for :{0}; a colon is written \\:{0}")
        _all_in(self.columns, self.statement.names, "columns: the statement has no :{}")
        return self


def _all_in(names: Sequence[str] | Mapping[str, str], known: Sequence[str] | Mapping[str, str], problem: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(problem.format(unknown[0]))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How messages become rows of one table, as it is now."""

    statement: Executable
    sources: Mapping[str, Callable[[Message], Any]]
    fits: Mapping[str, Callable[[str], str]]
    """What makes a text fit into its column, where that has a limit."""
    identity: tuple[TableClause, str] | None = None
    """Where a message that was written can be found again: the table, and the column that its id is in."""


_Row = tuple[str, dict[str, Any]]
"""A message's id, and the values by column."""


class Sql(BatchConsumer[SqlConfig]):
    """Writes messages into a table: inserts or updates rows, in batches."""

    _plan: _Plan | None = None

    def open(self) -> None:
        """Make ready; the database is connected to with the first message."""
        self._database = SqlDatabase(self.config.url, timeout=self.config.timeout)
        if self.config.upsert and self._database.dialect not in ("postgresql", "sqlite", "mysql"):
            raise ConfigError(f"upsert: it is not known how {self._database.dialect} does it; write a `statement` of your own")

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def consume_many(self, messages: Sequence[Message]) -> Failures:
        """Write the rows in one transaction, or in several where some are refused; those are told."""
        plan = self._plan or self._planned()
        rows: list[_Row] = []
        failures: Failures = {}
        for message in messages:
            try:
                rows.append((message.id, self._row(plan, message)))
            except PermanentError as error:
                failures[message.id] = error
        refused = self._write(plan, rows) if rows else {}
        self._plan = None if refused else plan  # the table may have changed
        return failures | refused

    def probe(self) -> str:
        """Connect, and look at the table."""
        text = self._database.probe()
        self._planned()
        return text

    def preview(self, message: Message) -> object:
        """Give the values that would be written, without a look at the table."""
        names = self.config.columns or (self.config.statement.names if self.config.statement else FIELDS)
        row = {name: SqlDatabase.plain(self._read(name)(message)) for name in names}
        return {"table": self.config.table, "row": row} if self.config.table else {"values": row}

    def _write(self, plan: _Plan, rows: Sequence[_Row]) -> Failures:
        """Write all, or without those that are there already, or in halves: until what is refused stands alone."""
        try:
            self._database.write(plan.statement, [values for _, values in rows])
        except TemporaryError as error:
            return dict.fromkeys((message_id for message_id, _ in rows), error)
        except PermanentError as error:
            try:
                there = self._there(plan, rows)
            except (TemporaryError, PermanentError) as unknown:
                return dict.fromkeys((message_id for message_id, _ in rows), unknown)
            left = [row for row in rows if row[0] not in there]
            if there:
                return self._write(plan, left) if left else {}
            if len(left) == 1:
                return {left[0][0]: error}
            middle = len(left) // 2
            return self._write(plan, left[:middle]) | self._write(plan, left[middle:])
        return {}

    def _there(self, plan: _Plan, rows: Sequence[_Row]) -> set[str]:
        """Give the ids of messages that were written before: they came again, as nobody could record it."""
        if plan.identity is None:
            return set()
        there, name = plan.identity
        query = select(there.c[name]).where(there.c[name].in_([values[name] for _, values in rows]))
        with self._database.transaction() as connection:
            found = {str(value) for value in connection.execute(query).scalars()}
        return {message_id for message_id, values in rows if str(values[name]) in found}

    def _planned(self) -> _Plan:
        """Look at the table, where there is one, and make the statement; raises `PermanentError` where they do not fit."""
        if self.config.statement is not None:
            reads = {name: self._read(name) for name in self.config.columns or self.config.statement.names}
            return _Plan(self.config.statement.bound(), reads, {})
        assert self.config.table is not None
        schema, _, name = self.config.table.rpartition(".")
        types = self._types(name, schema or None)
        names = [*self.config.columns] or [field for field in FIELDS if field in types]
        for wanted in (*names, *self.config.upsert):
            if wanted not in types or wanted not in names:
                raise PermanentError(f"the table {self.config.table} has no column '{wanted}'; it has {', '.join(types)}")
        if not names:
            raise PermanentError(f"the table {self.config.table} has no column called as a field of a message: give `columns`")
        target = table(name, *(column(name) for name in names), schema=schema or None)
        ids = [name for name in names if self.config.columns.get(name, name).strip("{ }") == "id"]
        return _Plan(
            statement=self._statement(target, names),
            sources={name: self._read(name) for name in names},
            fits=self._fitting(types, {*ids, *self.config.upsert}),
            identity=(target, ids[0]) if ids and not self.config.upsert else None,
        )

    def _types(self, name: str, schema: str | None) -> dict[str, Any]:
        with self._database.transaction() as connection:
            try:
                return {found["name"]: found["type"] for found in inspect(connection).get_columns(name, schema)}
            except NoSuchTableError:
                raise PermanentError(f"{self._database.place} has no table '{self.config.table}'") from None

    def _statement(self, target: TableClause, names: Sequence[str]) -> Executable:
        keys = self.config.upsert
        rest = [name for name in names if name not in keys]
        if not keys:
            return insert(target)
        if self._database.dialect == "mysql":
            into = mysql.insert(target)
            return into.on_duplicate_key_update({name: into.inserted[name] for name in rest or keys})
        # The two dialects' classes are alike, but share no type.
        upsert: Any = (postgresql if self._database.dialect == "postgresql" else sqlite).insert(target)
        found: Executable = upsert.on_conflict_do_nothing(index_elements=keys)
        if rest:
            found = upsert.on_conflict_do_update(index_elements=keys, set_={name: upsert.excluded[name] for name in rest})
        return found

    def _fitting(self, types: Mapping[str, Any], keys: set[str]) -> dict[str, Callable[[str], str]]:
        fits: dict[str, Callable[[str], str]] = {}
        for name, kind in types.items():
            if not isinstance(kind, String) or isinstance(kind, Enum) or self._database.dialect == "sqlite":
                continue  # SQLite holds texts of any length, whatever its columns say
            if kind.length:
                fits[name] = partial(shorten_key if name in keys else shorten, most=kind.length)
            elif self._database.dialect == "mysql" and (most := _BYTES.get(type(kind).__name__)):
                fits[name] = partial(shorten, most=most, unit="bytes")
        return fits

    def _row(self, plan: _Plan, message: Message) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, read in plan.sources.items():
            try:
                value = self._stored(read(message))
            except PermanentError as error:
                raise PermanentError(f"columns.{name}: {error}") from None
            row[name] = plan.fits[name](value) if name in plan.fits and isinstance(value, str) else value
        return row

    def _read(self, name: str) -> Callable[[Message], Any]:
        """Give what reads a column's value from a message."""
        source = self.config.columns.get(name, name)
        return Template(source).render if "{" in source else partial(_part, source)

    def _stored(self, value: Any) -> Any:
        """Give a value as the driver takes it: any database reads a text as what its column is."""
        if isinstance(value, datetime):
            if self._database.dialect == "postgresql":
                return value
            naive = value.astimezone(UTC).replace(tzinfo=None)
            return naive.isoformat(" ") if self._database.dialect == "sqlite" else naive
        value = SqlDatabase.plain(value, longest=_ENDLESS)
        if isinstance(value, (dict, list)):
            return msgspec.json.encode(value).decode()
        return str(value) if isinstance(value, int) and value >= 2**63 else value


def _part(source: str, message: Message) -> Any:
    """Give a field or a part of one; None where there is none."""
    name, _, rest = source.partition(".")
    value = getattr(message, name)
    if name == "labels" and rest:
        return value.get(rest)
    for step in rest.split(".") if rest else ():
        if isinstance(value, list) and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value
