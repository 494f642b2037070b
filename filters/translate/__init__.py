"""Looks a value up in a table, and writes what stands there into fields and labels.

The shortest form translates in its place: the value of a field or a label becomes what the table has for it.

```yaml
name: one-vocabulary
producers:
  - prometheus
filters:
  - translate:
      severity: {blocker: critical, trivial: debug}
      labels.environment: {prd: production, stg: staging}
  - translate:
      from: labels.instance
      to: {labels.owner: owner, labels.room: room}
      csv: hosts.csv
  - translate:
      from: labels.team
      to: labels.channel
      table: {db: "#databases", web: "#frontend"}
      default: "#everything-else"
  - translate:
      from: labels.customer
      to: {title: headline, labels.tier: tier}
      sql:
        url: "${CRM:-postgresql://reader@crm.example.com/crm}"
        query: SELECT name AS headline, tier FROM customers WHERE number = :value
        refresh: 10m
        on_error: pass
consumers:
  - log
```

`from` is what is looked up, `to` where what was found goes: one place, or with several columns a mapping of places to columns.
Without `to` an inline `table` translates in its place. A value is found as it is written; else in capital or small letters,
where that leaves one entry. What a place has already is replaced; a column that is empty or NULL for an entry leaves its place
as it is. Fields are read as producers read them: `WARN` is the severity warning. (A severity that producers know arrives
translated: `P1` is critical; a table is for other words.)

Where the table has no entry, or the message has nothing at `from`, the message passes as it is. `default` is a template of what
is written then to all of `to`; `missing: drop` and `missing: bury` end the message there.

**A file** (`csv`) has comma-separated values in UTF-8; its first line names the columns. The first column is looked up, or the
one that `column` names: `csv: {file: hosts.csv, column: name, delimiter: ";"}`. With two columns `to` may be one place. A path
that does not begin with `/` begins in the directory of the pipeline's file. It is read again when it changes. A file that cannot
be read (torn lines, a column that is gone, the same entry twice, more than 100,000 of them or 32 MiB) is an error in the log, and
its last good state is used; before there was a good one, messages wait. A hundred
thousand entries take about 50 MB in each worker. Write the new file beside the old one and rename it: half a file may look whole.

**A database** (`sql`) is asked by one query whose `:value` is bound, in a read-only transaction; the first row counts. An answer,
also that there is none, is kept in memory for `refresh`, 10,000 of them in each worker. Where the database is away the message is
filtered again later, with `on_error: pass` it passes as it is; the log says so, and the database is left alone for ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from filters.translate.options import CsvTable, SqlTable, TranslateConfig
from filters.translate.tables import ONLY, CsvFile, Entries, SqlRows, Table
from pipeline import Draft, Dropped, Filter, Message, MessagePath, PermanentError, TemporaryError, rendered, shorten

__all__ = ["CsvTable", "SqlTable", "Translate", "TranslateConfig"]


@dataclass(frozen=True, slots=True)
class _Lookup:
    """One value of a message, the table it is looked up in, and where what was found goes: places and their columns."""

    source: MessagePath
    table: Table
    targets: Mapping[MessagePath, str]


class Translate(Filter[TranslateConfig]):
    """Looks values up in a table, and writes what stands there into fields and labels."""

    def __init__(self, config: TranslateConfig) -> None:
        super().__init__(config)
        self._lookups = tuple(_lookups(config))

    def close(self) -> None:
        """Close what is open."""
        for lookup in self._lookups:
            lookup.table.close()

    def probe(self) -> str | None:
        """Read the file, or ask the database for a constant."""
        return next((text for lookup in self._lookups if (text := lookup.table.probe())), None)

    def filter(self, message: Message) -> Iterable[Message | Dropped]:
        """Give the message translated; raises as the options say where there is no entry, or no table."""
        draft = Draft(message)
        for lookup in self._lookups:
            value = lookup.source.text_of(message)
            try:
                row = lookup.table.find(value)
            except TemporaryError:
                if self.config.sql is None or self.config.sql.on_error == "retry":
                    raise
                continue
            if row is not None:
                _write(draft, lookup.targets, row)
            elif (default := self.config.default) is not None:
                for target in lookup.targets:
                    draft.write(target, rendered(target, partial(default.render, message)))
            elif self.config.missing != "pass":
                reason = f'the table has no entry for {lookup.source} "{shorten(" ".join(value.split()), 200)}"'
                if self.config.missing == "bury":
                    raise PermanentError(reason)
                yield Dropped(reason)
                return
        yield draft.done()


def _write(draft: Draft, targets: Mapping[MessagePath, str], row: Mapping[str, object]) -> None:
    for target, column in targets.items():
        if row.get(column) not in (None, ""):
            draft.write(target, row[column])


def _lookups(config: TranslateConfig) -> Iterable[_Lookup]:
    for path, texts in config.fields.items():
        yield _Lookup(path, Entries({value: {ONLY: text} for value, text in texts.items()}), {path: ONLY})
    if (source := config.from_) is not None:
        targets = config.to if isinstance(config.to, Mapping) else {config.to or source: ONLY}
        yield _Lookup(source, _table(config, frozenset(targets.values()) - {ONLY}), targets)


def _table(config: TranslateConfig, columns: frozenset[str]) -> Table:
    if config.csv is not None:
        return CsvFile(config.csv, columns)
    if config.sql is not None:
        return SqlRows(config.sql, columns)
    table = config.table or {}
    return Entries({value: entry if isinstance(entry, Mapping) else {ONLY: entry} for value, entry in table.items()})
