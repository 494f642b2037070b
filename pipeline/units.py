"""Units as people write them in YAML (`30s`, `10MiB`), as pydantic field types for plugin options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import durationpy
from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_MILLISECONDS = 10**11
_PERIODS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}
_RATE = re.compile(r"([1-9][0-9]{0,5})/([smh])")
_PART = re.compile(r"(\d+(?:\.\d+)?)([dw])")


def parse_duration(value: Any) -> timedelta:
    """Read `500ms`, `30s`, `5m`, `1h30m`, `7d` or `2w`; a timedelta passes as it is. Raises ValueError for anything else."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError("a duration such as 500ms, 30s, 5m, 1h30m or 7d is expected")
    hours = _PART.sub(lambda part: f"{float(part[1]) * {'d': 24, 'w': 168}[part[2]]:f}h", value)
    duration: timedelta = durationpy.from_str(hours)
    return duration


def format_duration(value: timedelta) -> str:
    """Write a duration as `parse_duration` reads it, in whole milliseconds: `1h30m`, `500ms`, `0s`."""
    rest = round(value.total_seconds() * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: Any) -> int:
    """Read `10MiB`, `512kB` or a whole number of bytes. Raises ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"(\d+)\s*([kKMG]i?B|B)?", value) if isinstance(value, str) else None
    if match is None or (match[2] or "B") not in _SIZES:
        raise ValueError("a size such as 512kB or 10MiB is expected")
    return int(match[1]) * _SIZES[match[2] or "B"]


def format_size(value: int) -> str:
    """Write a size as `parse_size` reads it, in the largest unit that fits evenly: `10MiB`, `512kB`, `100B`."""
    units = sorted(_SIZES.items(), key=lambda unit: unit[1], reverse=True)
    return next(f"{value // size}{unit}" for unit, size in units if not value % size)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in a time, written as `20/s`, `90/m` or `1000/h`."""

    count: int
    per: timedelta

    def __str__(self) -> str:
        return f"{self.count}/{next(unit for unit, size in _PERIODS.items() if size == self.per)}"

    @property
    def interval(self) -> timedelta:
        """The time from one to the next."""
        return self.per / self.count

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        """Let pydantic read it from a text, and write it as one."""
        return core_schema.no_info_plain_validator_function(
            parse_rate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        """Describe the text."""
        return {"type": "string", "pattern": f"^{_RATE.pattern}$", "examples": ["20/s", "90/m", "1000/h"]}


def parse_rate(value: Any) -> Rate:
    """Read `20/s`, `90/m` or `1000/h`; a rate passes as it is. Raises ValueError for anything else."""
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a rate such as 20/s, 90/m or 1000/h is expected")
    return Rate(int(match[1]), _PERIODS[match[2]])


def parse_time(value: Any) -> datetime:
    """Read a moment from a payload: RFC 3339 with a time zone, or seconds or milliseconds since 1970; given in UTC.

    Fractions finer than a microsecond are cut. Raises ValueError for anything else.
    """
    try:
        moment = _from_text(value) if isinstance(value, str) else _from_epoch(value)
        zoned = moment.tzinfo is not None
        moment = moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        raise ValueError("a time such as 2026-11-21T08:30:00Z, or seconds since 1970, is expected") from None
    if not zoned:
        raise ValueError("a time zone is missing, as in 2026-11-21T08:30:00Z")
    return moment


def parse_moment(text: str, now: datetime) -> datetime:
    """Read what a person gives as a moment: a time (`2026-11-21T08:30`, in UTC where it names no zone), or `2h` for so long ago.

    Raises ValueError for anything else.
    """
    try:
        return now - parse_duration(text) if _DURATION.fullmatch(text) else _in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise ValueError("a time such as 2026-11-21T08:30, or how long ago, such as 2h, is expected") from None


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _from_text(text: str) -> datetime:
    if "\0" in text:  # Python takes it for the end
        raise ValueError
    return datetime.fromisoformat(text)


def _from_epoch(value: Any) -> datetime:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["30s", "5m", "1h30m", "7d"]}),
]
"""A timedelta, written as `500ms`, `30s`, `5m`, `1h30m`, `7d`."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d+\s*([kMG]B|[KMG]iB|B)?$"}]}),
]
"""A number of bytes, written as `512kB` or `10MiB`."""
