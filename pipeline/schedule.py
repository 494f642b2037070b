"""When something is due: every so often, or by a cron line in a time zone, correct over daylight saving."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from pipeline.units import format_duration, parse_duration

SHORTHANDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
SHORTEST: Final = timedelta(seconds=1)
EARLY: Final = timedelta(seconds=30)
"""Clocks differ, and what is due at three o'clock may be done a moment before."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXPECTED: Final = "an interval such as 30s, a cron line of five fields such as */5 8-18 * * MON-FRI, or one of " + " ".join(
    SHORTHANDS
)


class Schedule(Protocol):
    """An interval (`30s`) or a cron line (`*/5 8-18 * * MON-FRI`) in a time zone."""

    def after(self, moment: datetime) -> datetime:
        """Give the first occurrence later than `moment`, as UTC."""

    def again(self, moment: datetime) -> datetime:
        """Give when what happened at `moment` is to happen again: an interval later, or at the next occurrence.

        What happened up to `EARLY` before an occurrence counts for that one.
        """


@dataclass(frozen=True, slots=True)
class Interval:
    """Every `length`, counted from 1970-01-01T00:00Z, so that all processes mean the same moments."""

    length: timedelta

    def after(self, moment: datetime) -> datetime:
        """Give the first occurrence later than `moment`, as UTC."""
        return _EPOCH + ((moment - _EPOCH) // self.length + 1) * self.length

    def again(self, moment: datetime) -> datetime:
        """Give the moment an interval later."""
        return moment + self.length

    def __str__(self) -> str:
        return format_duration(self.length)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line read in a time zone.

    A time that the clocks skip in spring is due when they have moved on; one that comes twice in autumn is due the
    first time only. Lines whose minute or hour begins with `*` go on by real time.
    """

    line: str
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime:
        """Give the first occurrence later than `moment`, as UTC."""
        # Within the hour that comes twice, CronSim begins with times that are already over.
        found = (local.astimezone(UTC) for local in CronSim(self.line, moment.astimezone(self.zone)))
        return next(due for due in found if due > moment)

    def again(self, moment: datetime) -> datetime:
        """Give the first occurrence more than `EARLY` later than `moment`, as UTC."""
        return self.after(moment + EARLY)

    def __str__(self) -> str:
        return f"{self.line} {self.zone.key}"


def read_zone(name: str) -> ZoneInfo:
    """Read a time zone's name; raises ValueError for what the machine's time zone data does not know."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("a time zone such as Europe/Berlin or UTC is expected") from None


def read_schedule(text: str, zone: ZoneInfo | None = None) -> Schedule:
    """Read `30s`, a cron line of five fields or `@daily`; raises ValueError for anything else, and for what never comes."""
    line = SHORTHANDS.get(text, text)
    if len(line.split()) == 1:
        return _interval(line)
    if len(line.split()) != 5:
        raise ValueError(f"{_EXPECTED} is expected")
    cron = Cron(" ".join(line.split()), zone or ZoneInfo("UTC"))
    try:
        cron.after(datetime.now(UTC))
    except CronSimError as error:
        what = str(error).strip().rstrip(".").lower() or "not a cron line"
        raise ValueError(f"{what}; a cron line is minute, hour, day of month, month and day of week") from None
    except StopIteration:
        raise ValueError("this date never comes") from None
    return cron


def _interval(text: str) -> Interval:
    try:
        length = parse_duration(text)
    except ValueError:
        raise ValueError(f"{_EXPECTED} is expected") from None
    if length < SHORTEST:
        raise ValueError(f"the shortest interval is {format_duration(SHORTEST)}")
    return Interval(length)
