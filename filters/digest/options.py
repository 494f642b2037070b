"""The options of `digest`."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from typing import Annotated, ClassVar, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline import (
    BatchTemplate,
    By,
    Condition,
    Config,
    Duration,
    MessagePath,
    Schedule,
    Size,
    Template,
    read_schedule,
    read_zone,
)

COUNT: Final = "count"
"""The column of how many messages of its key a message stands for."""
_SHORTEST: Final = timedelta(seconds=1)
_LONGEST: Final = timedelta(days=366)


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _column(path: str) -> str:
    """Refuse what is no place in a message."""
    if path != COUNT:
        MessagePath(path)
    return path


def _named(columns: object) -> object:
    """Give a list of paths headings: the last part of each, the whole path where two would be the same."""
    if not isinstance(columns, (list, tuple)) or not all(isinstance(one, str) for one in columns):
        return columns
    short = [re.sub(r"^(?:labels|data)\.", "", path) for path in columns]
    return {path if short.count(name) > 1 else name: path for path, name in zip(columns, short, strict=True)}


def _zone(name: str) -> str:
    read_zone(name)
    return name


Columns = Annotated[
    dict[str, Annotated[str, AfterValidator(_column)]],
    BeforeValidator(_named, json_schema_input_type=dict[str, str] | list[str]),
]
Kind = Literal["csv", "xlsx", "html", "text"]


class DigestConfig(Config):
    """The options of `digest`."""

    shorthand: ClassVar[str | None] = "within"

    within: Duration | None = Field(default=None, description="How long after its first message a digest leaves.")
    at: str | None = Field(default=None, description="When digests leave: a cron line such as `0 8 * * MON-FRI`, or `@daily`.")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="The time zone of `at`, and of the times that are shown."
    )
    by: By = Field(
        default=By(), description="A digest for each value of these fields, such as `[labels.team]`; else one for all."
    )
    latest: bool = Field(default=False, description="Of each key show the newest message alone, and how many there were.")
    title: BatchTemplate | None = Field(
        default=None, description="The title, over `messages`; else how many there are of each severity."
    )
    text: BatchTemplate | None = Field(
        default=None, description="The text, over `messages`; else a line for each, the gravest first."
    )
    lines: int = Field(
        default=50, ge=0, le=500, description="How many messages the text has a line for, where `text` is not given."
    )
    attach: Annotated[tuple[Kind, ...], BeforeValidator(_several, json_schema_input_type=Kind | list[Kind])] = Field(
        default=(), description="Files that go along, with a row for each message."
    )
    columns: Columns = Field(
        default_factory=dict,
        description="What stands in the files' rows: a list of fields, `labels.NAME` and `data.PATH`, or headings with these.",
    )
    sheet: Template | None = Field(default=None, description="The sheet of an XLSX file that a message is on; else its title.")
    name: str = Field(
        default="digest", min_length=1, max_length=60, pattern=r"^[\w. -]+$", description="How the files' names begin."
    )
    pass_: Condition | None = Field(
        default=None, alias="pass", description='What passes at once, such as `severity == "critical"`.'
    )
    keep_passed: bool = Field(default=False, description="What passes at once stands in the digest as well.")
    empty: bool = Field(default=False, description="Say so where nothing came: from the first message on, at each time of `at`.")
    most: int = Field(
        default=10_000, ge=1, le=10_000, description="Messages of a digest; with as many it leaves early, or in parts."
    )
    size: Size = Field(
        default=400 * 1024,
        ge=64 * 1024,
        le=10 * 1024 * 1024,
        description="Bytes of a digest with its files, packed as they travel; a larger one leaves in parts.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.within is None) == (self.at is None):
            raise ValueError('give either `within`, such as 1h, or `at`, such as "@daily"')
        if self.within is not None and not _SHORTEST <= self.within <= _LONGEST:
            raise ValueError("`within` is one second or more, and a year at most")
        if self.at is not None:
            try:
                read_schedule(self.at, self.zone)
            except ValueError as error:
                raise ValueError(f"at: {error}") from None
        if self.empty and (self.at is None or self.by.names):
            raise ValueError("`empty` goes with `at`, and not with `by`")
        if self.keep_passed and self.pass_ is None:
            raise ValueError("`keep_passed` goes with `pass`")
        self._files()
        return self

    def _files(self) -> None:
        if "xlsx" in self.attach and find_spec("xlsxwriter") is None:
            raise ValueError('attach: xlsx needs: pip install "siftbell[xlsx]"')
        if self.sheet is not None and "xlsx" not in self.attach:
            raise ValueError("`sheet` goes with attach: xlsx")
        if self.columns and not {*self.attach} - {"text"}:
            raise ValueError("`columns` goes with attach: csv, xlsx or html")
        if COUNT in self.columns.values() and not self.latest:
            raise ValueError(f"the column {COUNT} goes with `latest`")

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return read_zone(self.timezone)

    @cached_property
    def schedule(self) -> Schedule | None:
        """When digests leave; None where that is some time after the first message."""
        return read_schedule(self.at, self.zone) if self.at is not None else None
