"""When a polling producer is asked: every so often, or by a cron line in a time zone, correct over daylight saving."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from pipeline.spec.model import Schedule
from pipeline.units import format_duration, parse_duration

SHORTHANDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
SHORTEST: Final = timedelta(seconds=1)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXPECTED: Final = "an interval such as 30s, a cron line of five fields such as */5 8-18 * * MON-FRI, or one of " + " ".join(
    SHORTHANDS
)


@dataclass(frozen=True, slots=True)
class Interval:
    """Every `length`, counted from 1970-01-01T00:00Z, so that all processes mean the same moments."""

    length: timedelta

    def after(self, moment: datetime) -> datetime:
        """Give the first occurrence later than `moment`, as UTC."""
        return _EPOCH + ((moment - _EPOCH) // self.length + 1) * self.length

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
