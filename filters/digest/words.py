"""The words of a digest where no template is given: how many there are of each severity, and a line for each message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final
from zoneinfo import ZoneInfo

from filters.digest.rows import Entry, clean
from pipeline import Message, gravity, headline, shorten

_OVER: Final = "resolved"
_OTHER: Final = "other"
_LONGEST: Final = 200
"""Characters of a message's line."""


def gravest(messages: Sequence[Message]) -> str:
    """Give the gravest severity of those messages that are not over, or of all where all are."""
    firing = [message.severity for message in messages if message.status == "firing"]
    return max(firing or [message.severity for message in messages], key=gravity, default="")


def title_of(entries: Sequence[Entry], about: Sequence[str]) -> str:
    """Say how many there are: `12 messages for db: 2 critical, 9 warning, 1 resolved`."""
    shown, came = len(entries), sum(entry.times for entry in entries)
    if not shown:
        return "No messages"
    many = f"{came} message{'' if came == 1 else 's'}" + (
        f" about {shown} thing{'' if shown == 1 else 's'}" if came > shown else ""
    )
    whose = f" for {', '.join(filter(None, about))}" if any(about) else ""
    counts = Counter(_heading(entry.message) for entry in entries)
    named = [f"{counts[word]} {word}" for word in _order(counts)] if {*counts} != {_OTHER} else []
    return shorten(clean(f"{many}{whose}{': ' if named else ''}{', '.join(named)}"), _LONGEST)


def text_of(entries: Sequence[Entry], zone: ZoneInfo, most: int) -> str:
    """Give a line for each of the first `most` messages, under the heading of its severity, the gravest first."""
    several = len({entry.message.time.astimezone(zone).date() for entry in entries}) > 1
    counts = Counter(_heading(entry.message) for entry in entries)
    order = {word: place for place, word in enumerate(_order(counts))}
    ordered = sorted(entries, key=lambda entry: order[_heading(entry.message)])  # keeps the order within a severity
    parts = []
    for word, some in groupby(ordered[:most], key=lambda entry: _heading(entry.message)):
        lines = [_line(entry, zone, "%d %b %H:%M" if several else "%H:%M") for entry in some]
        parts.append("\n".join([f"{word} ({counts[word]})", *lines] if {*counts} != {_OTHER} else lines))
    if len(entries) > most:
        parts.append(f"… and {len(entries) - most} more")
    return "\n\n".join(parts)


def in_short(entries: Sequence[Entry]) -> Iterator[dict[str, str | int]]:
    """Give what a digest keeps of each message in its data."""
    for message, count in entries:
        said = {
            "id": message.id,
            "time": message.time.isoformat(),
            "title": shorten(clean(message.title), _LONGEST),
            "severity": shorten(message.severity, 50),
            "status": message.status,
            "source": shorten(message.source, _LONGEST),
            "key": shorten(message.key, _LONGEST),
            "url": message.url if len(message.url) <= 10 * _LONGEST else "",
        }
        yield {name: value for name, value in said.items() if value} | ({"count": count} if count > 1 else {})


def _heading(message: Message) -> str:
    if message.status == "resolved":
        return _OVER
    return clean(shorten(message.severity, 50)) or _OTHER


def _order(words: Iterable[str]) -> list[str]:
    """Give the headings: the gravest first, then others' words, then what is over."""
    return sorted(words, key=lambda word: (word == _OVER, word == _OTHER, -gravity(word), word))


def _line(entry: Entry, zone: ZoneInfo, form: str) -> str:
    message, count = entry
    title = headline(message.replace(status="firing"))
    times = f" ({count} times)" if count > 1 else ""
    return f"{message.time.astimezone(zone):{form}}  {shorten(clean(title), _LONGEST)}{times}"
