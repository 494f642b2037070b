"""The options of `translate`, and what fits together of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from pipeline import (
    SEVERITIES,
    ChangeablePath,
    Config,
    Duration,
    FileBeside,
    MessagePath,
    PathsConfig,
    SqlUrl,
    Statement,
    Template,
    normal_severity,
)

MOST_ENTRIES = 10_000
VALUE = "value"
"""The name that stands for what is looked up in a query."""


def _scalar(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return value


def _place(path: MessagePath) -> MessagePath:
    if path.field in ("labels", "data") and not path.is_part:
        raise ValueError("a field, a label such as labels.team, or a part of the payload such as data.code is expected")
    return path


Text = Annotated[str, BeforeValidator(_scalar, json_schema_input_type=str | int | float | bool)]
"""A text; a number is taken as one."""
Columns = Annotated[dict[str, Text], Field(min_length=1)]


class CsvTable(Config):
    """A table in a file."""

    file: FileBeside = Field(description="The file, in UTF-8; relative to the file of the pipeline.")
    column: str | None = Field(default=None, min_length=1, description="The column that is looked up; else the first one.")
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="What stands between two columns.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "string"}]}


class SqlTable(Config):
    """A table in a database."""

    url: SqlUrl = Field(description="The database, as SQLAlchemy writes it. Kept secret, as it may hold a password.")
    query: Statement = Field(description="One SELECT; `:value` stands for what is looked up. Its first row counts.")
    refresh: Duration = Field(default=timedelta(minutes=5), description="For how long an answer is taken from memory.")
    timeout: Duration = Field(default=timedelta(seconds=10), description="How long the query may take.")
    on_error: Literal["retry", "pass"] = Field(
        default="retry", description="Where the database is away: have the message filtered again later, or pass it as it is."
    )

    @model_validator(mode="after")
    def _asks_for_the_value(self) -> Self:
        if self.query.names != (VALUE,):
            raise ValueError("the query has one place, :value, as in SELECT owner FROM hosts WHERE name = :value")
        return self


class TranslateConfig(PathsConfig):
    """The options of `translate`."""

    fields: dict[ChangeablePath, Columns] = Field(
        default_factory=dict,
        description="Tables by the place they translate; may stand among the options: `translate: {severity: {P0: critical}}`.",
    )
    from_: Annotated[MessagePath, AfterValidator(_place)] | None = Field(
        default=None, alias="from", description="What is looked up: a field, `labels.NAME` or `data.PATH`."
    )
    to: ChangeablePath | Annotated[dict[ChangeablePath, str], Field(min_length=1)] | None = Field(
        default=None, description="Where what was found goes; with several columns a mapping: `{labels.owner: owner}`."
    )
    table: Annotated[dict[str, Text | Columns], Field(min_length=1, max_length=MOST_ENTRIES)] | None = Field(
        default=None, description="The table itself; an entry is a value, or a mapping of columns."
    )
    csv: CsvTable | None = Field(
        default=None, description="The table in a file of comma-separated values, whose first line names the columns."
    )
    sql: SqlTable | None = Field(default=None, description="The table in a database.")
    default: Template | None = Field(default=None, description="What is written where the table has no entry.")
    missing: Literal["pass", "drop", "bury"] = Field(default="pass", description="What to do where the table has no entry.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if problem := self._problem():
            raise ValueError(problem)
        return self

    def _problem(self) -> str:
        """Say what does not fit together; empty where all does."""
        tables = [name for name in ("table", "csv", "sql") if getattr(self, name) is not None]
        if self.default is not None and self.missing != "pass":
            return "default and missing: one of them says what to do where the table has no entry"
        if self.fields and (tables or self.from_ is not None or self.to is not None):
            return "what is translated in its place needs no from, to, table, csv or sql; write two steps"
        if unseen := next(self._never_seen(), ""):
            return unseen
        if self.fields:
            return ""
        if self.from_ is None or len(tables) != 1:
            return "from, and one of table, csv and sql, are required; or a table in its place, such as severity: {P0: critical}"
        return self._problem_of_target(tables[0])

    def _problem_of_target(self, kind: str) -> str:
        if self.to is None and (kind != "table" or (self.from_ is not None and self.from_.field == "id")):
            return "to: it is required, such as labels.owner, or {labels.owner: owner} where there are several columns"
        if self.table is None:
            return ""
        several = isinstance(self.to, Mapping)
        if any(isinstance(entry, Mapping) != several for entry in self.table.values()):
            return "table: an entry is a mapping of columns where `to` is one, else a value"
        columns = set(self.to.values()) if isinstance(self.to, Mapping) else set()
        known = {column for entry in self.table.values() if isinstance(entry, Mapping) for column in entry}
        if unknown := sorted(columns - known):
            return f"to: the table has no column '{unknown[0]}'"
        return ""

    def _never_seen(self) -> Iterator[str]:
        """Name the words of severities that producers translate themselves, to something else than the table does."""
        tables = [table for path, table in self.fields.items() if path.field == "severity"]
        if self.from_ is not None and self.from_.field == "severity" and self.to is None:
            tables.append({value: entry for value, entry in (self.table or {}).items() if isinstance(entry, str)})
        for value, entry in ((value, entry) for table in tables for value, entry in table.items()):
            known = normal_severity(value)
            if known in SEVERITIES and known != value.lower() and normal_severity(entry) != known:
                yield f"severity: {value} arrives as {known}, as producers know the word; write {known} for it"
