"""The rows of a digest's files: what stands in each cell, by the columns that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from filters.digest.options import COUNT
from pipeline import Message, MessagePath, shorten, shown_labels

Cell = str | int | float

LONGEST: Final = 32_767
"""UTF-16 units of a cell: what Excel takes."""
USUAL: Final = {name: name for name in ("time", "severity", "status", "title", "text", "labels", "source", "url")}
"""The columns where none are named; those of them that say nothing are left out."""
_EXACT: Final = 2**53
"""Larger numbers are texts: spreadsheets know no others than floating point."""
_CONTROLS: Final = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160), 0xFFFE, 0xFFFF])


class Entry(NamedTuple):
    """A message of a digest, and how many messages of its key it stands for."""

    message: Message
    times: int = 1


@dataclass(frozen=True)
class Table:
    """Headings, and a row for each message."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def table_of(entries: Sequence[Entry], columns: Mapping[str, str], zone: ZoneInfo, longest: int = LONGEST) -> Table:
    """Give the rows of these messages, in their order; no cell has more than `longest` UTF-16 units."""
    wanted = dict(columns) or ({COUNT: COUNT} if any(entry.times > 1 for entry in entries) else {}) | USUAL
    places = [None if path == COUNT else MessagePath(path) for path in wanted.values()]
    rows = [[_cell(value, zone, longest) for value in _values(entry, places)] for entry in entries]
    headings = [clean(name) for name in wanted]
    if not columns:
        said = [index for index in range(len(headings)) if any(row[index] != "" for row in rows)]
        headings, rows = [headings[index] for index in said], [[row[index] for index in said] for row in rows]
    return Table(headings, rows)


def clean(text: str) -> str:
    """Take out what no file may hold: controls, and halves of characters; lines end with a line feed."""
    return text.replace("\r\n", "\n").translate(_CONTROLS).replace("\r", "\n").encode(errors="replace").decode()


def written(time: datetime, zone: ZoneInfo) -> str:
    """Write a time as everybody can sort it, in the digest's zone."""
    return f"{time.astimezone(zone):%Y-%m-%d %H:%M:%S}"


def _values(entry: Entry, places: Sequence[MessagePath | None]) -> list[Any]:
    message = entry.message
    if any(place is not None and place.field == "data" for place in places):
        message = message.replace(data=message.data)  # what stays JSON would be read anew for each column
    return [entry.times if place is None else _value(message, place) for place in places]


def _value(message: Message, place: MessagePath) -> Any:
    if place.field == "labels" and not place.is_part:
        return ", ".join(f"{name}={value}" for name, value in shown_labels(message).items())
    return place.value(message)


def _cell(value: Any, zone: ZoneInfo, longest: int) -> Cell:
    """Give numbers as they are, and all else as a text that is not too long."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _EXACT:
        return value
    return shorten(clean(_text(value, zone)), longest, unit="utf-16")


def _text(value: Any, zone: ZoneInfo) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return written(value, zone) if isinstance(value, datetime) else msgspec.json.encode(value).decode()
