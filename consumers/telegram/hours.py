"""When messages make a sound: on some days, between two times of the day."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, Field

from pipeline import Condition, Config, Message, OpeningHours, read_shift, read_zone

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: Final[tuple[Day, ...]] = get_args(Day)
_SPAN: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")


def _span(text: str) -> str:
    if not _SPAN.fullmatch(text):
        raise ValueError("two times of the day such as 08:00-20:00 are expected")
    return text


def _zone(name: str) -> str:
    read_zone(name)
    return name


class SilentConfig(Config):
    """When messages are delivered without a sound."""

    outside: Annotated[str, AfterValidator(_span)] = Field(
        description="The hours of sound, such as 08:00-20:00; they may pass midnight."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(default="UTC", description="The time zone of these hours.")
    days: tuple[Day, ...] = Field(default=_DAYS, min_length=1, description="The days on which such hours begin; else all.")
    unless: Condition | None = Field(default=None, description="Messages that always make a sound (CEL).")

    def holds(self, message: Message, now: datetime) -> bool:
        """Say whether the message is silent at this time."""
        return not (self.unless is not None and self.unless.matches(message)) and now not in self._hours

    @cached_property
    def _hours(self) -> OpeningHours:
        return OpeningHours((read_shift(f"{','.join(self.days)} {self.outside}"),), read_zone(self.timezone))
