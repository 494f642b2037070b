"""What a message says of an alert: which one it is, since when it fires, and until when it counts as firing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import msgspec

from pipeline.message import Message
from pipeline.units import parse_time

SLACK: Final = timedelta(seconds=10)
"""By so much the clocks of workers may differ, and messages overtake one another, before the later word on an alert loses."""


@dataclass(frozen=True, slots=True)
class Spell:
    """A time for which an alert fires, as a message tells of it."""

    identity: str
    """Which alert it is: the message's key, else its labels, else its source and title."""
    starts: datetime
    ends: datetime
    """When it was over, or until when it counts as firing if nothing more is heard."""
    over: bool
    """Whether the message says that it is over."""
    assumed: bool
    """Whether the message does not say until when it fires."""


def spell_of(message: Message, now: datetime, lasting: timedelta) -> Spell:
    """Give what a message that comes `now` says; an alert without an end counts as firing for `lasting`.

    Times are those of Alertmanager's alerts in `data` (`startsAt`, `endsAt`), else the message's own.
    """
    data = message.data if isinstance(message.data, Mapping) else {}
    begun, until = _moment(data.get("startsAt")), _moment(data.get("endsAt"))
    if message.status == "resolved":
        ends = min(message.time, now)
        return Spell(identity_of(message), min(begun or ends, ends), ends, over=True, assumed=False)
    starts = begun or message.time
    return Spell(identity_of(message), starts, until or now + lasting, over=False, assumed=until is None)


def identity_of(message: Message) -> str:
    """Say in a short text which alert a message is about."""
    if message.key:
        return message.key
    about: Sequence[object] = sorted(message.labels.items()) or [message.source, message.title]
    return blake2b(msgspec.json.encode(about), digest_size=8).hexdigest()


def _moment(value: Any) -> datetime | None:
    """Read a time; None where there is none that makes sense, as Go's zero."""
    try:
        moment = parse_time(value)
    except ValueError:
        return None
    return moment if moment.year > 1 else None
