"""The options of `sql`, and what fits together of them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline import Config, Duration, SqlUrl, Statement, Template
from producers.sql.cursors import MOST


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
    status: Template | None = Field(default=None, description="`resolved`, `ok`, `closed` and the like; anything else is firing.")
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
