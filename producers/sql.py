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
is a template; `status` is resolved for `resolved` or `ok`, else firing. With `per: result` a message has up to `limit` rows
in `data.rows`. A result without rows tells nothing. Times are RFC 3339 texts, intervals seconds; decimals are numbers
where these are exact, else texts; bytes are hexadecimal. Texts have no NUL characters, and end at 64 Ki characters. A
template that fails is told in the log, and the field stays as it was.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, Literal, Self
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import structlog
from pydantic import Field, model_validator

from pipeline import (
    Config,
    Duration,
    Message,
    PermanentError,
    PollingProducer,
    SqlDatabase,
    SqlUrl,
    Statement,
    Template,
    normal_severity,
    parse_time,
    shorten,
)

MOST: Final = 10_000
"""Rows that a cursor remembers, and that a result without `:cursor` may have."""
_DIGEST: Final = 16
_TEMPLATES: Final = ("title", "text", "key", "severity", "status")
_Row = dict[str, Any]
_Found = Iterator[tuple[_Row | None, str, str]]
"""A row, what makes it and its occasion unique, and the cursor behind it; None for a cursor that stands alone."""

log = structlog.get_logger()


class SqlConfig(Config):
    """The options of `sql`."""

    url: SqlUrl = Field(description="The database, as SQLAlchemy writes it. Kept secret, as it may hold a password.")
    query: Statement = Field(description="What is asked: one SELECT, with `:cursor` for new rows.")
    cursor: str | None = Field(default=None, description="The column that grows from row to row, which `:cursor` stands for.")
    start: int | float | str | None = Field(
        default=None, description="`:cursor` at the first poll: a value, or a SELECT that gives it. With `changed`: `now`."
    )
    overlap: Duration | int | float | None = Field(
        default=None, description="How far behind the latest row late ones are looked for: a duration, or a number."
    )
    changed: bool | list[str] = Field(
        default=False, description="Only rows that are new or changed; `true`, or the columns that tell rows apart."
    )
    per: Literal["row", "result"] = Field(default="row", description="What a message is made of.")
    limit: int = Field(default=500, ge=1, le=MOST, description="How many rows are read at once, and stand in a result's message.")
    timeout: Duration = Field(default=timedelta(seconds=30), description="How long a query may take.")
    title: Template | None = Field(default=None, description="The title; `data.NAME` is a column.")
    text: Template | None = Field(default=None, description="The text; else the columns, line by line.")
    key: Template | None = Field(default=None, description="What the message is about.")
    severity: Template | None = Field(default=None, description="The severity, in any of many words.")
    status: Template | None = Field(default=None, description="`resolved` or `ok`; anything else is firing.")
    labels: dict[str, Template] = Field(default_factory=dict, description="Labels by name.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := self._problem():
            raise ValueError(problem)
        return self

    def _problem(self) -> str:
        """Say what does not fit together; empty where all does."""
        if unknown := [name for name in self.query.names if name != "cursor"]:
            return f"query: nothing stands for :{unknown[0]}; a colon is written \\:{unknown[0]}"
        if self.query.names:
            return self._problem_of_cursor()
        if self.cursor or self.overlap:
            return "query: `cursor` and `overlap` need it, as in WHERE id > :cursor ORDER BY id"
        if self.start is not None and not (self.changed and self.start == "now"):
            return "start: without :cursor in the query there is but `start: now`, with `changed`"
        return ""

    def _problem_of_cursor(self) -> str:
        text = self.query.text
        if self.changed:
            return "changed: it compares whole results; leave :cursor out of the query"
        if not self.cursor:
            return "cursor: name the column that :cursor stands for"
        if self.start is None:
            return "start: say what :cursor is at the first poll: 0, a time, or SELECT coalesce(max(id), 0) FROM …"
        if not re.search(r"\border\s+by\b", text, re.IGNORECASE):
            return f"query: the rows have to come in order; end it with ORDER BY {self.cursor}"
        if re.search(r"\b(limit|fetch\s+(first|next))\s[\s\w:,]*;?\s*$", text, re.IGNORECASE):
            return "query: leave LIMIT out of it; the option `limit` says how many rows are read at once"
        return ""


class Sql(PollingProducer[SqlConfig]):
    """Asks a database, and makes messages of its rows: of new ones, of changed ones, or of whole results."""

    def open(self) -> None:
        """Make ready; the database is asked at a poll only."""
        self._database = SqlDatabase(self.config.url, timeout=self.config.timeout, read_only=True)
        self._query = self.config.query.bound()

    def close(self) -> None:
        """Close what is open."""
        self._database.close()

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
        place = _Place.read(cursor) if cursor else _Place(bound=self._start())
        if not cursor:
            yield None, "", place.text()
        full = True
        while full:
            asked = self.config.limit + place.remembered
            rows = self._database.read(self._query, {"cursor": place.bound}, asked)
            full = len(rows) == asked
            seen: Counter[str] = Counter()
            for row in rows:
                same = _digest(row)
                seen[same] += 1
                digest = _digest(same, seen[same])
                value = self._value(row)
                if place.pass_by(value, digest, self.config.overlap):
                    yield row, digest, place.text()

    def _changed(self, cursor: str | None) -> _Found:
        """Compare with what is remembered: a digest of each row by a digest of what tells it apart."""
        kept = _Kept.read(cursor)
        before = kept.rows.copy()
        there = set()
        for row in self._all():
            key = _digest([row[name] for name in self._apart(row)])[:_DIGEST]
            if key in there:
                raise PermanentError(f"two rows have the same {', '.join(self._apart(row))}: name more columns in `changed`")
            there.add(key)
            digest = _digest(row)
            if before.get(key) == digest[:_DIGEST]:
                continue
            kept.put(key, digest[:_DIGEST])
            if cursor or self.config.start is None:
                kept.count += 1
                yield row, f"{kept.count}:{digest}", kept.text()
        for key in before.keys() - there:
            kept.forget(key)
        if kept.text() != cursor:
            yield None, "", kept.text()

    def _everything(self, cursor: str | None) -> _Found:
        kept = _Kept.read(cursor)
        for row in self._all():
            kept.count += 1
            yield row, f"{kept.count}:{_digest(row)}", kept.text()

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


class _Place:
    """How far the rows have come: the value from which on is asked, the latest one, and which rows behind the bound were told."""

    def __init__(self, bound: Any, latest: Any = None, told: Iterable[str] = ()) -> None:
        self.bound = bound
        self._latest = latest
        self._old = dict.fromkeys(told)
        """Told at an earlier poll, and not met in this one yet."""
        self._met: dict[str, Any] = {}
        """Told or passed over in this poll, with the value of each, about in order."""
        self._joined = ""
        """Both as they are written; empty where that is to be done anew: thousands of them are not put together for each row."""

    @classmethod
    def read(cls, cursor: str) -> Self:
        """Read what `text` wrote."""
        kept = msgspec.json.decode(cursor)
        told = kept["told"]
        latest = None if kept["latest"] is None else _read(kept["latest"])
        return cls(_read(kept["bound"]), latest, (told[at : at + _DIGEST] for at in range(0, len(told), _DIGEST)))

    def text(self) -> str:
        """Write it as a cursor."""
        latest = None if self._latest is None else _written(self._latest)
        self._joined = self._joined or "".join((*self._old, *self._met))
        kept = {"bound": _written(self.bound), "latest": latest, "told": self._joined}
        return msgspec.json.encode(kept).decode()

    @property
    def remembered(self) -> int:
        """How many rows are remembered as told."""
        return len(self._old) + len(self._met)

    def pass_by(self, value: Any, digest: str, overlap: timedelta | float | None) -> bool:
        """Note the next row, in the order of the values, and say whether it is to be told."""
        digest = digest[:_DIGEST]
        known = digest in self._old or digest in self._met
        self._old.pop(digest, None)
        try:
            if self._latest is None or value > self._latest:
                self._move(value, overlap)
            elif _is_less(value, self.bound):
                raise PermanentError("the rows do not come in the order of the cursor's column: end the query with ORDER BY")
        except TypeError:
            raise PermanentError("the values of the cursor's column cannot be compared: they are of different types") from None
        self._met.setdefault(digest, value)
        if self._joined and not known:
            self._joined += digest
        if self.remembered > MOST:
            raise PermanentError(
                f"more than {MOST} rows share a value of the cursor's column, or lie within `overlap`: "
                "name a column that tells rows apart, or a shorter overlap"
            )
        return not known

    def _move(self, value: Any, overlap: timedelta | float | None) -> None:
        """Go on to a later value: all that is remembered has been met or is gone, and the bound follows."""
        self._old.clear()
        self._joined = ""
        if self._latest is not None:
            follows = self._latest if overlap is None else min(self._latest, _before(value, overlap))
            self.bound = _later(self.bound, follows)
        self._latest = value
        while self._met and (first := next(iter(self._met))) and _is_less(self._met[first], self.bound):
            del self._met[first]


class _Kept:
    """What there was at the last poll: a digest of each row by a digest of what tells it apart; and how many were told so far."""

    def __init__(self, count: int = 0, rows: str = "") -> None:
        self.count = count
        self._joined = rows
        ends = range(0, len(rows), 2 * _DIGEST)
        self.rows = {rows[at : at + _DIGEST]: rows[at + _DIGEST : at + 2 * _DIGEST] for at in ends}

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        """Read what `text` wrote."""
        return cls(**msgspec.json.decode(cursor)) if cursor else cls()

    def text(self) -> str:
        """Write it as a cursor."""
        self._joined = self._joined or "".join(key + digest for key, digest in self.rows.items())
        return msgspec.json.encode({"count": self.count, "rows": self._joined}).decode()

    def put(self, key: str, digest: str) -> None:
        """Note a row."""
        self._joined = self._joined + key + digest if self._joined and key not in self.rows else ""
        self.rows[key] = digest

    def forget(self, key: str) -> None:
        """Forget a row that is gone."""
        self._joined = ""
        del self.rows[key]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _fit(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write texts as a message has them: all but the text in one line, severity and status in our words."""
    fitted = {name: " ".join(value.split()) if name in ("title", "key", "url") else value for name, value in fields.items()}
    if "severity" in fitted:
        fitted["severity"] = normal_severity(fitted["severity"])
    if "status" in fitted:
        fitted["status"] = "resolved" if fitted["status"].strip().lower() in ("resolved", "ok") else "firing"
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


def _digest(value: Any, *more: Any) -> str:
    return blake2b(msgspec.json.encode(SqlDatabase.plain([value, *more])), digest_size=16).hexdigest()


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "int": int,
    "float": float,
    "str": str,
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "bytes": bytes.fromhex,
    "UUID": UUID,
}


def _written(value: Any) -> tuple[str, str]:
    kind = type(value).__name__
    if kind not in _READERS:
        raise PermanentError(f"the cursor's column holds {kind}: a column of numbers, times or texts is expected")
    return kind, value.hex() if kind == "bytes" else value.isoformat() if isinstance(value, date) else str(value)


def _read(written: Sequence[str]) -> Any:
    kind, text = written
    return _READERS[kind](text)


def _before(value: Any, overlap: timedelta | float) -> Any:
    """Give what is by `overlap` less than a value, of the value's own type."""
    try:
        if not isinstance(overlap, timedelta):
            return value - (Decimal(str(overlap)) if isinstance(value, Decimal) else overlap)
        if isinstance(value, (int, float)):  # seconds or milliseconds since 1970
            return value - type(value)(overlap.total_seconds() * (1000 if value >= 10**11 else 1))
        if not isinstance(value, str):
            return value - overlap
        moment = datetime.fromisoformat(value) - overlap
        return moment.isoformat(value[10]) if len(value) > 10 else moment.date().isoformat()
    except (TypeError, ValueError, OverflowError):
        raise PermanentError("overlap: a duration is expected for a column of times, a number for one of numbers") from None


def _is_less(one: Any, other: Any) -> bool:
    try:
        return bool(one < other)
    except TypeError:  # the start, as it stands in the configuration
        return False


def _later(bound: Any, follows: Any) -> Any:
    """Give the later of two; where the bound is still the text of a time, it is read."""
    try:
        return max(bound, follows)
    except TypeError:
        pass
    try:
        start = datetime.fromisoformat(bound)
        zone = follows.tzinfo
    except (TypeError, ValueError, AttributeError):
        return follows
    return follows if (start.astimezone(zone) if start.tzinfo and zone else start.replace(tzinfo=zone)) < follows else bound
