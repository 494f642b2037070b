"""Where translations stand: in the options, in a file that may change, in a database."""

from __future__ import annotations

import csv
from collections import OrderedDict
from collections.abc import Mapping
from io import StringIO
from threading import Lock
from time import monotonic
from typing import Any, Final, Protocol

import structlog

from filters.translate.options import VALUE, CsvTable, SqlTable
from pipeline import PermanentError, SqlDatabase, TemporaryError

MOST_ROWS: Final = 100_000
MOST_BYTES: Final = 32 * 1024 * 1024
MOST_KEPT: Final = 10_000
"""Answers of a database that are kept in memory; the oldest go first."""
AWAY: Final = 10.0
"""Seconds for which a database that was away is not asked again: each connection that fails may take as long."""
ONLY: Final = ""
"""The column of an entry that has but one value, and no name for it."""

_MEANWHILE: Final = {"retry": "they wait until it answers", "pass": "they pass as they are"}

Row = Mapping[str, Any]
log = structlog.get_logger()


class Table(Protocol):
    """A table in which values are looked up, by several threads at once."""

    def find(self, value: str) -> Row | None:
        """Give the entry of a value, by column, or None; raises `TemporaryError` or `PermanentError`."""

    def probe(self) -> str | None:
        """Look whether it is there, and say what it is."""

    def close(self) -> None:
        """Close what is open."""


class Entries:
    """A table in memory: a value is found as it is written, else without regard to capital letters where that is one entry."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        folded: dict[str, Row | None] = {}
        for value, row in rows.items():
            folded[value.casefold()] = None if value.casefold() in folded else row
        self._folded = folded

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, value: str) -> Row | None:
        """Give the entry of a value."""
        found = self._rows.get(value)
        return self._folded.get(value.casefold()) if found is None else found

    def probe(self) -> None:
        """There is nothing to ask."""

    def close(self) -> None:
        """There is nothing to close."""


class CsvFile:
    """A table in a file: read when it is first needed, and whenever it has changed; a broken one leaves the last good one."""

    def __init__(self, options: CsvTable, columns: frozenset[str]) -> None:
        """`columns` are those that have to be there; without any the table has one beside that which is looked up."""
        self._options = options
        self._columns = columns
        self._lock = Lock()
        self._seen: tuple[int, ...] | None = None
        self._entries: Entries | None = None
        self._problem = ""

    def find(self, value: str) -> Row | None:
        """Give the entry of a value; raises `TemporaryError` where there has been no good file yet."""
        entries = self._current()
        if entries is None:
            raise TemporaryError(f"{self._options.file}: {self._problem}")
        return entries.find(value)

    def probe(self) -> str:
        """Read the file."""
        entries = self._current()
        if entries is None or self._problem:
            raise TemporaryError(f"{self._options.file}: {self._problem}")
        return f"{self._options.file}, {len(entries)} entries"

    def close(self) -> None:
        """There is nothing to close."""

    def _current(self) -> Entries | None:
        seen = self._look()
        if seen != self._seen or seen is None:
            with self._lock:
                if seen != self._seen or seen is None:
                    self._read_again()
                    self._seen = seen
        return self._entries

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self._options.file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino

    def _read_again(self) -> None:
        try:
            self._entries, problem = Entries(self._read()), ""
        except OSError as error:
            problem = error.strerror or type(error).__name__
        except UnicodeDecodeError:
            problem = "it is not UTF-8"
        except (ValueError, csv.Error) as error:
            problem = str(error)
        if problem and problem != self._problem:
            kept = "its last good state is used" if self._entries is not None else "messages wait until it can be read"
            log.error("translate.broken_table", file=str(self._options.file), problem=problem, until_then=kept)
        self._problem = problem

    def _read(self) -> dict[str, Row]:
        with self._options.file.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES // 2**20} MiB")
        reader = csv.reader(StringIO(raw.decode("utf-8-sig"), newline=""), delimiter=self._options.delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        place = self._checked(header)
        wanted = [(name, header.index(name)) for name in self._columns] or [(ONLY, 1 - place)]
        rows: dict[str, Row] = {}
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise ValueError(f"line {reader.line_num}: {len(header)} columns are expected, there are {len(cells)}")
            value = cells[place].strip()
            if value in rows:
                raise ValueError(f"line {reader.line_num}: its entry is there already, in a line before")
            rows[value] = {name: cells[column].strip() for name, column in wanted}
            if len(rows) > MOST_ROWS:
                raise ValueError(f"it has more than {MOST_ROWS} entries")
        return rows

    def _checked(self, header: list[str]) -> int:
        """Give the place of the column that is looked up; raises ValueError where the first line names other columns."""
        if not header:
            raise ValueError("it is empty: the first line names the columns")
        if len(header) == 1:
            raise ValueError("it has one column: another `delimiter` may stand between them, such as ';'")
        column = self._options.column or header[0]
        if len({*header}) < len(header):
            raise ValueError("two columns have the same name")
        if missing := sorted({column, *self._columns} - {*header}):
            raise ValueError(f"there is no column '{missing[0]}'")
        if not self._columns and len(header) != 2:
            raise ValueError(f"it has {len(header)} columns: `to` has to say which one goes where, as in {{labels.owner: owner}}")
        return header.index(column)


class SqlRows:
    """A table in a database: each value is asked for once in a while."""

    def __init__(self, options: SqlTable, columns: frozenset[str]) -> None:
        """`columns` are those that a row has to have; without any it has one."""
        self._options = options
        self._columns = columns
        self._query = options.query.bound()
        self._database = SqlDatabase(options.url, timeout=options.timeout, read_only=True)
        self._lock = Lock()
        self._kept: OrderedDict[str, tuple[float, Row | None]] = OrderedDict()
        self._away: tuple[float, str] = (0.0, "")

    def find(self, value: str) -> Row | None:
        """Give the row of a value, as the database had it within the last `refresh`."""
        if not value:
            return None
        now = monotonic()
        with self._lock:
            until, row = self._kept.get(value, (now, None))
        if now < until:
            return row
        row = self._asked(value)
        with self._lock:
            self._kept.pop(value, None)
            self._kept[value] = now + self._options.refresh.total_seconds(), row
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return row

    def probe(self) -> str:
        """Ask the database for a constant."""
        return self._database.probe()

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def _asked(self, value: str) -> Row | None:
        until, problem = self._away
        if monotonic() < until:
            raise TemporaryError(problem)
        try:
            rows = self._database.read(self._query, {VALUE: value}, 1)
        except TemporaryError as error:
            self._away = monotonic() + AWAY, str(error)
            log.warning("translate.database_away", problem=str(error), messages=_MEANWHILE[self._options.on_error])
            raise
        if not rows:
            return None
        row = {name: SqlDatabase.plain(cell) for name, cell in rows[0].items()}
        if missing := sorted(self._columns - row.keys()):
            raise PermanentError(f"the query gives no column '{missing[0]}'")
        if self._columns:
            return row
        if len(row) != 1:
            raise PermanentError(f"the query gives {len(row)} columns: `to` has to say which one goes where")
        return {ONLY: next(iter(row.values()))}
