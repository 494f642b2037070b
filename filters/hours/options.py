"""The options of `hours`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline import Condition, Config, Dates, OpeningHours, Shift, read_zone


def _zone(name: str) -> str:
    read_zone(name)
    return name


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Shifts = Annotated[tuple[Shift, ...], BeforeValidator(_several, json_schema_input_type=Shift | list[Shift]), Field(min_length=1)]
_Dates = Annotated[tuple[Dates, ...], BeforeValidator(_several, json_schema_input_type=Dates | list[Dates])]
_Zone = Annotated[str, AfterValidator(_zone)]


class PersonConfig(Config):
    """When one person is there."""

    timezone: _Zone | None = Field(default=None, description="Where the person is.")
    open: _Shifts | None = Field(default=None, description="The person's hours of the week.")
    holidays: _Dates | None = Field(default=None, description="The holidays where the person is.")
    leave: _Dates = Field(default=(), description="The days on which the person is away.")
    deputy: str | None = Field(default=None, min_length=1, description="Who gets the messages while the person is not there.")


class HoursConfig(Config):
    """The options of `hours`."""

    timezone: _Zone = Field(default="UTC", description="The time zone of the hours, such as Europe/Berlin.")
    open: _Shifts = Field(description="The hours of the week, such as MON-FRI 08:00-18:00.")
    holidays: _Dates = Field(default=(), description="Days that have none: 2026-12-24, or 2026-12-25..2026-12-26.")
    pass_: Condition | None = Field(default=None, alias="pass", description="Messages that pass at any time (CEL).")
    otherwise: Literal["hold", "drop"] = Field(default="hold", description="What becomes of others outside of the hours.")
    deputy: str | None = Field(default=None, min_length=1, description="Who gets them instead, if there.")
    cancel: bool = Field(default=False, description="Drop what began and was resolved while it waited.")
    fold: bool = Field(default=False, description="Of what waited let only the newest message of each key leave.")
    by: str = Field(default="labels.receiver", pattern=r"^labels\..+", description="The label that says for whom a message is.")
    people: dict[str, PersonConfig] = Field(default_factory=dict, description="When each of them is there.")

    @model_validator(mode="after")
    def _some_day(self) -> Self:
        for name in (None, *self.people):
            if (gap := self.hours_of(name).gap()) is not None:
                whose = f"people.{name}: " if name else ""
                raise ValueError(f"{whose}no hours begin within a year of {gap.first}")
        return self

    def hours_of(self, name: str | None) -> OpeningHours:
        """Give the hours of a person, or of all who are not named."""
        person = self.people.get(name or "", PersonConfig())
        closed = self.holidays if person.holidays is None else person.holidays
        return OpeningHours(person.open or self.open, read_zone(person.timezone or self.timezone), (*closed, *person.leave))
