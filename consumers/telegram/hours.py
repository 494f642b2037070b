"""When messages make a sound: on some days, between two times of the day."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from pipeline import Condition, Config, Message

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: Final[tuple[Day, ...]] = get_args(Day)
_SPAN: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")


def _span(text: str) -> str:
    if not _SPAN.fullmatch(text):
        raise ValueError("two times of the day such as 08:00-20:00 are expected")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("a time zone such as Europe/Berlin is expected") from None
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
        return not (self.unless is not None and self.unless.matches(message)) and not self._loud(now)

    def _loud(self, now: datetime) -> bool:
        local = now.astimezone(ZoneInfo(self.timezone))
        minute = local.hour * 60 + local.minute
        begin, end = (int(time[:2]) * 60 + int(time[3:]) for time in self.outside.split("-"))
        today, yesterday = _DAYS[local.weekday()] in self.days, _DAYS[local.weekday() - 1] in self.days
        if begin < end:
            return today and begin <= minute < end
        return (today and minute >= begin) or (yesterday and minute < end)
