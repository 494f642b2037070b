"""The message: the frozen fact that travels from a producer through the filters to the consumers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import msgspec

from pipeline.present import new_id as new_id  # noqa: PLC0414 - an id is part of a message
from pipeline.present import now

SEVERITIES: Final = ("debug", "info", "warning", "error", "critical")
"""The severities that all producers map to, from least to most; a sender's own word passes unchanged, in lower case."""

_SEVERITIES: Final = {
    **dict.fromkeys(
        ("critical", "crit", "fatal", "emergency", "emerg", "alert", "panic", "disaster", "page", "p1", "sev1"), "critical"
    ),
    **dict.fromkeys(("error", "err", "major", "high", "p2", "sev2"), "error"),
    **dict.fromkeys(("warning", "warn", "minor", "average", "medium", "p3", "sev3"), "warning"),
    **dict.fromkeys(("info", "information", "informational", "notice", "low", "p4", "sev4"), "info"),
    **dict.fromkeys(("debug", "trace", "verbose"), "debug"),
}

_GRAVITIES: Final = {severity: place for place, severity in enumerate(SEVERITIES)}

Status = Literal["firing", "resolved"]

_FIRING: Final = frozenset(("firing", "open", "opened", "active", "alerting", "alarm", "triggered", "problem")) | frozenset(
    ("critical", "error", "warning", "failed", "failing", "down", "insufficient_data")
)
_OVER: Final = frozenset(
    ("resolved", "ok", "closed", "cleared", "fixed", "inactive", "normal", "recovered", "recovery", "healthy", "up")
)

_RESOLVED: Final = "#2eb67d"
_COLOURS: Final = {"critical": "#d50f25", "error": "#e8590c", "warning": "#f2b807", "info": "#2d7ff9", "debug": "#8a94a6"}
_COLOURLESS: Final = "#5b6b7f"

if TYPE_CHECKING:
    Payload = Any
else:
    Payload = msgspec.Raw  # what msgspec reads there: the payload's JSON as it stands, see `Message.data`


def normal_severity(word: str) -> str:
    """Give the one of `SEVERITIES` that a sender means (`WARN` is `warning`); an unknown word passes in lower case."""
    if (known := _SEVERITIES.get(word)) is not None:
        return known
    word = word.strip().lower()
    return _SEVERITIES.get(word, word)


def gravity(severity: str) -> int:
    """Say how grave a severity is: its place in `SEVERITIES`, -1 for a word that only the sender knows, and for none."""
    return _GRAVITIES.get(severity, -1)


def normal_status(word: str) -> Status | None:
    """Give the status that a sender means (`OK` is resolved, `ALARM` is firing); None for a word that says neither."""
    word = word.strip().lower()
    if word in _OVER:
        return "resolved"
    return "firing" if word in _FIRING else None


def derived_id(parent: str, *parts: str | int) -> str:
    """Give the id of a part of a message: always the same for the same parent and parts, and sorted beside the parent.

    The time of the parent's UUIDv7 is kept; the rest is a hash of parent and parts.
    """
    digest = int.from_bytes(blake2b("/".join([parent, *map(str, parts)]).encode(), digest_size=16).digest(), "big")
    time = UUID(parent).int >> 80 << 80
    return str(UUID(int=time | 7 << 76 | (digest & 0xFFF) << 64 | 2 << 62 | digest >> 66))


def foreign_id(time: datetime | None, *parts: str | bytes) -> str:
    """Give the id of a message that another system has a name for: always the same for the same time and parts.

    It sorts by `time`; without one it is a UUIDv8, which bears none.
    """
    digest = blake2b(digest_size=16)
    for part in parts:
        raw = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big") + raw)
    rest = int.from_bytes(digest.digest(), "big")
    moment, version = (max(0, int(time.timestamp() * 1000)) & 0xFFFFFFFFFFFF, 7) if time else (0, 8)
    return str(UUID(int=moment << 80 | version << 76 | (rest & 0xFFF) << 64 | 2 << 62 | rest >> 66))


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What every ops tool agrees on, as one frozen value.

    Make a changed copy with `replace`; never change `labels` or `data` in place.

    `data` is the payload as it came: what JSON can hold, so no cycle leads back to the message. Given as `msgspec.Raw`, or read
    from a queue, it stays JSON and is carried on as it is; each look at `data` then reads it. Times bear a time zone.
    """

    id: str = msgspec.field(default_factory=new_id)
    source: str
    """Where it came from: a URL or a name the sender gives."""
    type: str = "event"
    """What kind of fact it is: `alert`, `event`, or the sender's own word."""
    time: datetime = msgspec.field(default_factory=now)
    title: str = ""
    text: str = ""
    severity: str = ""
    """One of `SEVERITIES` where the producer can tell, else the sender's own word in lower case, or empty."""
    status: Status = "firing"
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    key: str = ""
    """What the message is about: messages of one key tell of the same thing (an alert's fingerprint)."""
    url: str = ""
    data: Payload = None

    def replace(self, **changes: Any) -> Message:
        """Give a copy with these fields changed; the copy shares `labels` and `data` unless they are among them."""
        return msgspec.structs.replace(self, **changes)

    def plain(self) -> dict[str, Any]:
        """Give the fields that say something as values that JSON has, by their names."""
        found: dict[str, Any] = msgspec.to_builtins(self.replace(data=None))
        return found if self.data is None else found | {"data": msgspec.to_builtins(self.data)}

    def __eq__(self, other: object) -> bool:
        """Compare all fields; the payload by what it says, however it is kept."""
        if not isinstance(other, Message):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in FIELDS)

    __hash__ = None  # type: ignore[assignment] # labels and payloads have none either

    def __repr__(self) -> str:
        """Give the fields that say something, as they are given to the class."""
        fields = ((name, getattr(self, name)) for name in FIELDS)
        return f"Message({', '.join(f'{name}={value!r}' for name, value in fields if value)})"


class Proven(tuple[Message, ...]):
    """Messages that were read from JSON field by field: as JSON they can be read again, as long as nobody changes them."""

    __slots__ = ()


_kept: Final = Message.__dict__["data"]  # where the payload lies, as a value or as JSON


def _data(message: Message) -> Any:
    value = _kept.__get__(message)
    return msgspec.json.decode(value) if type(value) is msgspec.Raw else value


type.__setattr__(Message, "data", property(_data))  # msgspec reads and writes the place itself; who asks is given the value

FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(Message))
"""The names that conditions and templates may use, in the order of `Message`."""


def colour(message: Message) -> str:
    """Give the colour that a message is shown in, as `#rrggbb`: green where it is resolved, else by its severity."""
    return _RESOLVED if message.status == "resolved" else _COLOURS.get(message.severity, _COLOURLESS)


def headline(message: Message) -> str:
    """Give the line that a message is shown by, never empty: its title or the first line of its text, marked where resolved."""
    first = next(filter(None, (" ".join(line.split()) for line in (message.title, *message.text.split("\n", 20)))), "")
    line = first or f"{message.type} from {message.source}"
    return f"Resolved: {line}" if message.status == "resolved" and not line.startswith("Resolved: ") else line


def in_time(messages: Iterable[Message]) -> list[Message]:
    """Give messages in the order of their times; of one moment what is resolved comes last, else the order is that of the ids."""
    return sorted(messages, key=lambda one: (one.time, one.status == "resolved", one.id))


def shown_labels(message: Message, names: Iterable[str] | None = None) -> dict[str, str]:
    """Give the labels that a message is shown with: these, in this order, or all; none without a name or a value.

    Of all, those are left out that say how somebody is reached (`receiver_…`).
    """
    known = (name for name in message.labels if not name.startswith("receiver_")) if names is None else names
    labels = ((name.strip(), message.labels.get(name, "").strip()) for name in known)
    return {name: value for name, value in labels if name and value}
