"""Hours of a week in a time zone, without some days: when somebody is there. Wall-clock time, correct over daylight saving."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydantic_core import CoreSchema, core_schema

FARTHEST: Final = 366
"""How many days an opening is looked for."""

_DAYS: Final = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_DAY: Final = "|".join(_DAYS)
_SPAN: Final = r"(?:[01]\d|2[0-3]):[0-5]\d-(?:(?:[01]\d|2[0-3]):[0-5]\d|24:00)"
_SOME: Final = rf"(?:{_DAY})(?:-(?:{_DAY}))?"
_SHIFT: Final = re.compile(rf"(?:(?P<days>{_SOME}(?:,{_SOME})*) )?(?P<span>{_SPAN})", re.IGNORECASE)
_DATE: Final = r"[12]\d{3}-\d\d-\d\d"
_RANGE: Final = re.compile(rf"({_DATE})(?:\.\.({_DATE}))?")
_ONE: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Shift:
    """A span of some days of the week, written as `MON-FRI 08:00-18:00`, `SAT,SUN 10:00-14:00` or `22:00-06:00` (every day).

    One that passes midnight belongs to the day on which it begins; one that ends at the time at which it begins lasts a day.
    """

    text: str
    days: frozenset[int]
    """Monday is 0."""
    begin: timedelta
    """From midnight of its day, by the wall clock."""
    end: timedelta

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        """Let pydantic read it from a text, and write it as one."""
        return core_schema.no_info_plain_validator_function(
            read_shift, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        """Describe the text."""
        return {"type": "string", "examples": ["MON-FRI 08:00-18:00", "SAT,SUN 10:00-14:00", "22:00-06:00"]}


@dataclass(frozen=True, slots=True)
class Dates:
    """A day or several, written as `2026-12-24` or `2026-12-25..2026-12-26`, the last one among them."""

    first: date
    last: date

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}..{self.last}"

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        """Let pydantic read it from a text, and write it as one."""
        return core_schema.no_info_plain_validator_function(
            read_dates, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        """Describe the text."""
        return {"type": "string", "pattern": f"^{_RANGE.pattern}$", "examples": ["2026-12-24", "2026-12-25..2026-12-26"]}


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """Shifts in a time zone; none of them begins on one of the `closed` days.

    A shift begins and ends when the wall clock shows its times. A time that the clocks skip in spring is when they have moved
    on; one that comes twice in autumn is the first of the two.
    """

    shifts: tuple[Shift, ...]
    zone: ZoneInfo
    closed: tuple[Dates, ...] = ()

    def __contains__(self, moment: datetime) -> bool:
        """Say whether a shift is on."""
        day = moment.astimezone(self.zone).date()
        return any(begin <= moment < end for one in (day - _ONE, day) for begin, end in self._of(one))

    def opening(self, moment: datetime) -> datetime | None:
        """Give `moment` where a shift is on, else when the next one begins, in UTC; None where that is in more than a year."""
        if moment in self:
            return moment
        day = moment.astimezone(self.zone).date()
        for number in range(-1, FARTHEST + 1):
            begins = [begin for begin, _ in self._of(day + number * _ONE) if begin > moment]
            if begins:
                return min(begins)
        return None

    def gap(self) -> Dates | None:
        """Give closed days behind which there is no opening for more than a year, if there are such."""
        for dates in self.closed:
            if self.opening(_moment(dates.first, timedelta(), self.zone)) is None:
                return dates
        return None

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.shifts))} {self.zone.key}"

    def _of(self, day: date) -> Iterator[tuple[datetime, datetime]]:
        """Give the shifts that begin on a day; one of which the clocks skip all does not take place."""
        if any(day in dates for dates in self.closed):
            return
        for shift in self.shifts:
            if day.weekday() in shift.days:
                begin, end = _moment(day, shift.begin, self.zone), _moment(day, shift.end, self.zone)
                if begin < end:
                    yield begin, end


def read_shift(value: Any) -> Shift:
    """Read `MON-FRI 08:00-18:00`; a shift passes as it is. Raises ValueError for anything else."""
    if isinstance(value, Shift):
        return value
    found = _SHIFT.fullmatch(" ".join(value.split())) if isinstance(value, str) else None
    if found is None:
        raise ValueError("days and two times such as MON-FRI 08:00-18:00, SAT,SUN 10:00-14:00 or 22:00-06:00 are expected")
    begin, end = (_of_day(text) for text in found["span"].split("-"))
    return Shift(found[0].upper(), _days(found["days"]), begin, end if begin < end else end + _ONE)


def read_dates(value: Any) -> Dates:
    """Read `2026-12-24` or `2026-12-25..2026-12-26`; dates pass as they are. Raises ValueError for anything else."""
    if isinstance(value, Dates):
        return value
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    try:
        first, last = (date.fromisoformat(text) for text in (found[1], found[2] or found[1])) if found else (None, None)
    except ValueError:
        first = last = None
    if first is None or last is None:
        raise ValueError("a day such as 2026-12-24, or 2026-12-25..2026-12-26, is expected")
    if last < first:
        raise ValueError("the last day is before the first")
    return Dates(first, last)


def _days(text: str | None) -> frozenset[int]:
    found: set[int] = set()
    for part in (text or "MON-SUN").upper().split(","):
        first, *more = (_DAYS.index(day) for day in part.split("-"))
        last = more[-1] if more else first
        found |= {number % 7 for number in range(first, last + 1 + (7 if last < first else 0))}
    return frozenset(found)


def _of_day(text: str) -> timedelta:
    return timedelta(hours=int(text[:2]), minutes=int(text[3:]))


def _moment(day: date, since: timedelta, zone: ZoneInfo) -> datetime:
    """Give when the wall clock shows a time of a day, or the first one after it that it shows, in UTC."""
    wall = datetime.combine(day, time()) + since
    while (moment := wall.replace(tzinfo=zone).astimezone(UTC)).astimezone(zone).replace(tzinfo=None) != wall:
        wall += _MINUTE  # the clocks skip an hour, or on an island half of one
    return moment
