"""The case of a key: what is known of it while its window is open, and the message that waits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from filters.flap.course import Course, Known
from filters.flap.options import FlapConfig
from pipeline import Dropped, Keep, Message, Opened, Released, Stay, format_duration, gravity, headline

_AHEAD: Final = timedelta(minutes=1)
"""Clocks differ by so much at most; a time farther ahead is a mistake that must not keep a message for years."""
_OVERTAKEN: Final = timedelta(minutes=1)
"""What fires and comes so much later than the newest was not overtaken by it: its sender's clock was put back."""


class Case:
    """What is known of a key while its window is open, and the message that waits."""

    def __init__(self, config: FlapConfig, opened: Opened) -> None:
        self._config = config
        self._now, self._key = opened.now, opened.key
        self._known = msgspec.convert(opened.kept or {}, Known)
        self._course = Course(self._known.course, config.within)
        self._waited = self._known.waits
        self._waiting = next((one for one in opened.messages if one.id == self._waited), None)
        self._needed = bool(opened.messages) or self._known.began is not None

    def take(self, message: Message) -> Iterator[Released]:
        """Decide about a message."""
        if message.id == self._waited:
            return
        at = min(message.time, self._now + _AHEAD)
        yield from self._go_to(at, self._course.since)
        if self._is_anew(message, at):
            self._course, self._known.seen = Course([], self._config.within), self._now
        newest, since = self._course.newest, self._course.since
        added = self._course.add(message, at)
        if added:
            self._known.seen = self._now
        late = newest is not None and at < newest.time
        if not late:
            self._known.heard = self._now
        if self._known.began is not None:
            yield from self._flapping(message, added, late=late)
        elif added and self._course.changes >= self._config.changes:
            yield from self._begin(message)
        elif newest is not None and late:
            yield Dropped(f"older than what is known, of {newest.time:%Y-%m-%d %H:%M:%S %Z}", message)
        elif message.status == "firing":
            yield from self._firing(message)
        else:
            quick = self._known.told is True and since is not None and at - since < self._config.settle
            yield from self._resolved(message, quick=quick)

    def end(self) -> Iterator[Released]:
        """Tell what has been stable up to now, and say what is kept until when."""
        since, known = max(filter(None, (self._course.since, self._known.seen)), default=None), self._known
        yield from self._go_to(self._now, since)
        if not self._needed:
            return  # nothing has come for so long that it is forgotten
        due = self._now + self._config.within
        if since is not None and (self._waiting is not None or known.began is not None):
            due = since + self._patience
        if self._waiting is not None:
            yield Stay(self._waiting, due)
        known.waits = self._waiting.id if self._waiting is not None else ""
        known.course = self._course.moments
        yield Keep(msgspec.to_builtins(known), due)

    def _is_anew(self, message: Message, at: datetime) -> bool:
        """Say whether what is older than the newest counts all the same: nothing that fires is silenced for long."""
        newest, heard = self._course.newest, self._known.heard
        if message.status == "resolved" or newest is None or heard is None:
            return False
        return at < newest.time and self._now - heard >= _OVERTAKEN

    @property
    def _patience(self) -> timedelta:
        return self._config.settle if self._known.began is None else self._config.stable

    def _go_to(self, moment: datetime, since: datetime | None) -> Iterator[Released]:
        """Tell what is over by a moment: a resolve has waited long enough, or nothing has changed for long enough."""
        known = self._known
        if since is None or since + self._patience > moment:
            return
        if known.began is not None:
            yield self._ended(self._waiting or Message(source="flap", title=self._key, key=self._key), known.began)
            known.told = self._course.newest is not None and self._course.newest.firing
            known.began, known.changes = None, 0
            self._course.begin_anew()
        elif self._waiting is not None:
            yield self._waiting
            known.told = False
        self._waiting = None

    def _firing(self, message: Message) -> Iterator[Released]:
        if self._waiting is None:
            yield message
            self._known.told = True
            return
        yield Dropped("it fired again at once", self._waiting)
        yield Dropped("it fires again, and that it was over was not told", message)
        self._waiting = None

    def _resolved(self, message: Message, *, quick: bool) -> Iterator[Released]:
        if self._waiting is not None:
            yield Dropped(f"{message.id} is newer, and waits in its place", self._waiting)
        elif not quick:
            yield message
            self._known.told = False
            return
        self._waiting = message

    def _begin(self, message: Message) -> Iterator[Released]:
        """Tell that it flaps. The message waits on as well: should nothing come after it, it says how it ended."""
        known, course = self._known, self._course
        known.began, known.changes, known.told = course.began, course.changes, True
        known.severity = message.severity
        if self._waiting is not None:
            yield Dropped("it flaps", self._waiting)
        yield _told(message, f"is flapping ({known.changes} changes in {_length(course.span)})", "began", status="firing")
        self._waiting = message

    def _flapping(self, message: Message, added: int, *, late: bool) -> Iterator[Released]:
        self._known.changes += added
        reason = f"it flaps, with {self._known.changes} changes so far"
        if late:
            yield Dropped(f"{reason}, and this is older than the newest", message)
            return
        if self._waiting is not None:
            yield Dropped(reason, self._waiting)
        if message.status == "firing" and gravity(message.severity) > gravity(self._known.severity):
            self._known.severity = message.severity
            yield _told(message, f"is flapping, and {message.severity} now", "worse", status="firing")
        self._waiting = message

    def _ended(self, message: Message, began: datetime) -> Message:
        newest, since = self._course.newest, self._course.since
        status: Literal["firing", "resolved"] = "firing" if newest is not None and newest.firing else "resolved"
        length = _length(max(began, since) - began) if since is not None else "0s"
        return _told(
            message, f"is stable again after {self._known.changes} changes in {length}: {status}", "ended", status=status
        )


def _told(message: Message, what: str, label: str, *, status: Literal["firing", "resolved"]) -> Message:
    subject = headline(message.replace(status="firing"))
    return message.replace(title=f"{subject} {what}", status=status, labels={**message.labels, "flapping": label})


def _length(length: timedelta) -> str:
    return format_duration(timedelta(seconds=length // timedelta(seconds=1)))
