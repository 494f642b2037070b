"""Asks a database, and makes a message of each row, or of each result.

`url` is SQLAlchemy's: `postgresql://` (needs `siftbell[postgres]`), `mysql://` and `mariadb://` (`siftbell[mysql]`),
`sqlite:////FILE`, and any other database whose SQLAlchemy package is installed. Give it a user who may read and nothing
else. PostgreSQL, MySQL, MariaDB and SQLite are asked in read-only transactions, and end a query that takes longer than
`timeout`; whatever was asked, of any database, is rolled back.

**New rows** need `:cursor` in the query: the value of the column `cursor` up to which the rows have come. At the first
poll it is `start`, or what a SELECT there gives:

```yaml
name: new-orders
producers:
  - sql:
      url: "${ORDERS:-postgresql://reader@db.example.com/orders}"
      query: SELECT id, customer, total FROM orders WHERE id > :cursor ORDER BY id
      cursor: id
      start: SELECT coalesce(max(id), 0) FROM orders
      overlap: 1000
      title: "Order {{ data.id }}: {{ data.total }} by {{ data.customer }}"
    schedule: 1m
consumers:
  - log
```

Numbers of a sequence, and times by `now()`, are given while a transaction goes on; it may commit after one that began
later, and its rows would be passed over. `overlap` looks for them so far behind the latest row: a number (`1000`) or a
duration (`5m`). A row is known by all its columns and not told twice. The rows of the latest value are always asked for
again, so rows may share a value. Leave LIMIT out: `limit` rows are read at once.

**Changed rows** (`changed: true`) compare the result with that of the last poll: a row that is new, or differs in any
column, is a message. The first column tells rows apart, or those that `changed: [host, disk]` names; it is their `key`.
Leave out columns that always differ, such as an age. With `start: now` what is there at the first poll is not told.

```yaml
name: failing-jobs
producers:
  - sql:
      url: sqlite:////var/lib/jobs/jobs.db
      query: SELECT name, error, CASE WHEN error IS NULL THEN 'resolved' ELSE 'firing' END AS status FROM jobs
      changed: true
      severity: error
    schedule: 30s
consumers:
  - log
```

**Otherwise** each poll tells the whole result: all that is wrong now, or with `per: result` a report.

`data` is the row. Columns called title, text, severity, status, key, url and time become the message's own, unless there
is a template; `status` is resolved for `ok`, `closed` and the like, else firing. With `per: result` a message has up to
`limit` rows in `data.rows`. A result without rows tells nothing. Times are RFC 3339 texts, intervals seconds; decimals are
numbers where these are exact, else texts; bytes are hexadecimal. Texts have no NUL characters, and end at 64 Ki characters. A
template that fails is told in the log, and the field stays as it was.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import msgspec
import structlog

from pipeline import (
    Message,
    PermanentError,
    PollingProducer,
    SqlDatabase,
    Statement,
    Template,
    normal_severity,
    normal_status,
    parse_time,
    shorten,
)
from producers.sql.cursors import DIGEST, MOST, Kept, Place, digest_of
from producers.sql.options import SqlConfig

_TEMPLATES: Final = ("title", "text", "key", "severity", "status")
_Row = dict[str, Any]
_Found = Iterator[tuple[_Row | None, str, str]]
"""A row, what makes it and its occasion unique, and the cursor behind it; None for a cursor that stands alone."""

log = structlog.get_logger()


class Sql(PollingProducer[SqlConfig]):
    """Asks a database, and makes messages of its rows: of new ones, of changed ones, or of whole results."""

    def open(self) -> None:
        """Make ready; the database is asked at a poll only."""
        self._database = SqlDatabase(self.config.url, timeout=self.config.timeout, read_only=True)
        self._query = self.config.query.bound()

    def close(self) -> None:
        """Close what is open."""
        self._database.close()

    def probe(self) -> str:
        """Connect, and select a constant."""
        return self._database.probe()

    def poll(self, cursor: str | None) -> Iterable[tuple[Message | None, str]]:
        """Ask, and give what is to tell; raises `PermanentError` for what the database refuses and what cannot be kept apart."""
        if self.config.query.names:
            found = self._new(cursor)
        else:
            found = self._changed(cursor) if self.config.changed else self._everything(cursor)
        if self.config.per == "row":
            for row, unique, position in found:
                yield None if row is None else self._told(self._of_row(row), unique), position
            return
        while part := list(islice(found, self.config.limit)):
            rows = [row for row, _, _ in part if row is not None]
            unique = "".join(unique for _, unique, _ in part)
            yield self._told(self._of_result(rows), unique) if rows else None, part[-1][2]

    def _new(self, cursor: str | None) -> _Found:
        """Read page by page, each from the same bound on: what is remembered as told is passed over."""
        assert self.config.cursor is not None
        place = Place.read(cursor) if cursor else Place(bound=self._start())
        if not cursor:
            yield None, "", place.text()
        full = True
        while full:
            asked = self.config.limit + place.remembered
            rows = self._database.read(self._query, {"cursor": place.bound}, asked)
            full = len(rows) == asked
            seen: Counter[str] = Counter()
            for row in rows:
                same = digest_of(row)
                seen[same] += 1
                digest = digest_of(same, seen[same])
                value = self._value(row)
                if place.pass_by(value, digest, self.config.overlap):
                    yield row, digest, place.text()

    def _changed(self, cursor: str | None) -> _Found:
        """Compare with what is remembered: a digest of each row by a digest of what tells it apart."""
        kept = Kept.read(cursor)
        before = kept.rows.copy()
        there = set()
        for row in self._all():
            key = digest_of([row[name] for name in self._apart(row)])[:DIGEST]
            if key in there:
                raise PermanentError(f"two rows have the same {', '.join(self._apart(row))}: name more columns in `changed`")
            there.add(key)
            digest = digest_of(row)
            if before.get(key) == digest[:DIGEST]:
                continue
            kept.put(key, digest[:DIGEST])
            if cursor or self.config.start is None:
                kept.count += 1
                yield row, f"{kept.count}:{digest}", kept.text()
        for key in before.keys() - there:
            kept.forget(key)
        if kept.text() != cursor:
            yield None, "", kept.text()

    def _everything(self, cursor: str | None) -> _Found:
        kept = Kept.read(cursor)
        for row in self._all():
            kept.count += 1
            yield row, f"{kept.count}:{digest_of(row)}", kept.text()

    def _all(self) -> list[_Row]:
        rows = self._database.read(self._query, {}, MOST + 1)
        if len(rows) > MOST:
            raise PermanentError(f"the result has more than {MOST} rows: ask for less, or for new rows with :cursor")
        return rows

    def _start(self) -> Any:
        start = self.config.start
        if not isinstance(start, str) or not re.match(r"\s*(select|with|values)\b", start, re.IGNORECASE):
            return start
        rows = self._database.read(Statement(start).bound(), {}, 1)
        value = next(iter(rows[0].values()), None) if rows else None
        if value is None:
            raise PermanentError("start: the SELECT gave no value; write coalesce(max(id), 0)")
        return value

    def _value(self, row: _Row) -> Any:
        if self.config.cursor not in row:
            raise PermanentError(f"the query gives no column '{self.config.cursor}' but {', '.join(row)}")
        if (value := row[self.config.cursor]) is None:
            raise PermanentError(f"a row has no value in '{self.config.cursor}': leave such rows out by the query")
        return value

    def _apart(self, row: _Row) -> list[str]:
        """Give the columns that tell rows apart."""
        if not isinstance(self.config.changed, list):
            return [*row][:1]
        if unknown := [name for name in self.config.changed if name not in row]:
            raise PermanentError(f"changed: the query gives no column '{unknown[0]}' but {', '.join(row)}")
        return self.config.changed

    def _of_row(self, row: _Row) -> dict[str, Any]:
        data = {name: SqlDatabase.plain(value) for name, value in row.items()}
        own = {name: _text(data[name]) for name in (*_TEMPLATES, "url") if data.get(name) is not None}
        lines = [f"{name}: {_text(value)}" for name, value in data.items() if value is not None]
        key = "/".join(_text(data[name]) for name in self._apart(row)) if self.config.changed else ""
        moment = _moment(row.get("time"))
        return {"title": shorten(", ".join(lines), 120), "text": "\n".join(lines), "key": key, "data": data, **moment, **own}

    def _of_result(self, rows: list[_Row]) -> dict[str, Any]:
        data = [{name: SqlDatabase.plain(value) for name, value in row.items()} for row in rows]
        lines = [", ".join(f"{name}: {_text(value)}" for name, value in row.items() if value is not None) for row in data[:20]]
        lines += [f"… and {len(data) - 20} more"] if len(data) > 20 else []
        title = "1 row" if len(data) == 1 else f"{len(data)} rows"
        return {"title": title, "text": "\n".join(lines), "data": {"count": len(data), "rows": data}}

    def _told(self, fields: dict[str, Any], unique: str) -> Message:
        """Make the message, the templates' turn last. Its id is the same whenever it is made of the same."""
        place = self._database.place
        made = Message(source=place, id=str(uuid5(NAMESPACE_URL, f"{place}\n{self.config.query.text}\n{unique}")), **_fit(fields))
        changes: dict[str, Any] = {}
        for name in _TEMPLATES:
            if (template := getattr(self.config, name)) is not None:
                changes |= _rendered(name, template, made)
        labels: dict[str, str] = {}
        for name, template in self.config.labels.items():
            labels |= _rendered(name, template, made)
        return made.replace(**_fit(changes), labels=labels)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _fit(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write texts as a message has them: all but the text in one line, severity and status in our words."""
    fitted = {name: " ".join(value.split()) if name in ("title", "key", "url") else value for name, value in fields.items()}
    if "severity" in fitted:
        fitted["severity"] = normal_severity(fitted["severity"])
    if "status" in fitted:
        fitted["status"] = normal_status(fitted["status"]) or "firing"
    return fitted


def _rendered(name: str, template: Template, message: Message) -> dict[str, str]:
    try:
        return {name: template.render(message)}
    except PermanentError as error:
        log.warning("a template failed", field=name, error=str(error))
        return {}


def _moment(value: Any) -> dict[str, datetime]:
    """Give the message's time where the column has one; what bears no zone is UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        moment = moment if isinstance(moment, datetime) else parse_time(moment)
    except ValueError:
        return {}
    return {"time": moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)}
