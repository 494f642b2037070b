"""The case of a key: what is known of it while its window is open, and the message that waits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

from filters.hold.options import HoldConfig
from pipeline import Dropped, Keep, Message, Opened, Released, Stay, format_duration

_AHEAD: Final = timedelta(minutes=1)
"""Clocks differ by so much at most; a time farther ahead is a mistake that must not keep a message for years."""
_OVERTAKEN: Final = timedelta(minutes=1)
"""What fires and comes so much later than the newest was not overtaken by it: its sender's clock was put back."""
_OVER_KNOWN: Final = timedelta(hours=1)


class Known(msgspec.Struct, omit_defaults=True):
    """What is kept of a key."""

    newest: datetime | None = None
    """The time of the newest message."""
    heard: datetime | None = None
    """When that came."""
    since: datetime | None = None
    """Since when it fires; None where it does not, as far as is known."""
    over: datetime | None = None
    """The time of the newest resolve."""
    told: bool | None = None
    """Whether it was told that it fires, or fired last; None where nobody knows."""
    waits: str = ""
    """The id of the message that waits."""


class Case:
    """What is known of a key while its window is open, and the message that waits."""

    def __init__(self, config: HoldConfig, opened: Opened) -> None:
        self._config = config
        self._now = opened.now
        self._known = msgspec.convert(opened.kept or {}, Known)
        self._waited = self._known.waits
        self._waiting = next((one for one in opened.messages if one.id == self._waited), None)
        self._needed = bool(opened.messages)

    def take(self, message: Message) -> Iterator[Released]:
        """Decide about a message."""
        if message.id == self._waited:
            return
        known, at = self._known, min(message.time, self._now + _AHEAD)
        yield from self._pass_what_lasts(at)
        since = max(known.newest or at, at)
        if at < since and not self._is_anew(message):
            yield Dropped(f"older than what is known, of {since:%Y-%m-%d %H:%M:%S %Z}", message)
            self._learn(message, at)
            return
        known.newest, known.heard = at, self._now
        yield from self._resolved(message, at) if message.status == "resolved" else self._firing(message, since)

    def end(self) -> Iterator[Released]:
        """Pass what has lasted by now, and say what is kept until when."""
        yield from self._pass_what_lasts(self._now)
        known, config = self._known, self._config
        known.waits = ""
        if self._waiting is not None and known.since is not None:
            known.waits, due = self._waiting.id, known.since + config.for_
            yield Stay(self._waiting, due)
        elif self._needed:
            due = self._now + (max(config.for_, _OVER_KNOWN) if known.since is None else config.remember)
        else:
            return  # nothing has come for so long that it is forgotten
        yield Keep(msgspec.to_builtins(known), due)

    def _is_anew(self, message: Message) -> bool:
        """Say whether what bears an older time than the newest counts all the same: nothing that fires is silenced for long."""
        heard = self._known.heard
        return message.status != "resolved" and heard is not None and self._now - heard >= _OVERTAKEN

    def _firing(self, message: Message, at: datetime) -> Iterator[Released]:
        known = self._known
        if known.since is None:
            known.since, known.told = at, False
        if known.told:
            yield self._telling(message, at)
            return
        if self._waiting is not None:
            yield Dropped(f"{message.id} is newer, and waits in its place", self._waiting)
        self._waiting = message
        if self._config.pass_ is not None and self._config.pass_.matches(message):
            yield from self._pass(at)

    def _resolved(self, message: Message, at: datetime) -> Iterator[Released]:
        known = self._known
        if self._waiting is not None and known.since is not None:
            lasted, limit = format_duration(_whole(max(at, known.since) - known.since)), format_duration(self._config.for_)
            reason = f"over after {lasted}, before {limit}"
            yield Dropped(reason, self._waiting)
            yield Dropped(reason, message)
        elif known.since is None and known.told is False:
            yield Dropped("it was over before, and nobody was told of it", message)
        else:
            yield self._telling(message, at)
            known.told = True
        self._waiting, known.since, known.over = None, None, at

    def _learn(self, message: Message, at: datetime) -> None:
        """Learn from a message that came too late since when it fires."""
        known = self._known
        if message.status == "resolved":
            known.over = max(known.over or at, at)
            if known.since is not None and known.since <= at:
                known.since = known.newest
        elif known.since is not None and (known.over is None or at > known.over):
            known.since = min(known.since, at)

    def _pass_what_lasts(self, moment: datetime) -> Iterator[Released]:
        known = self._known
        if self._waiting is not None and known.since is not None and known.since + self._config.for_ <= moment:
            yield from self._pass(moment)

    def _pass(self, moment: datetime) -> Iterator[Released]:
        assert self._waiting is not None
        yield self._telling(self._waiting, moment)
        self._waiting, self._known.told = None, True

    def _telling(self, message: Message, moment: datetime) -> Message:
        """Give a message that tells how long it has lasted, where that is asked for and known."""
        known, tell = self._known, self._config.tell
        if tell is None or known.since is None:
            return message
        lasted = format_duration(_whole(max(moment, known.since) - known.since))
        if tell == "data":
            payload = {} if message.data is None else message.data
            return message.replace(data={**payload, "lasted": lasted}) if isinstance(payload, dict) else message
        line = f"It lasted {lasted}." if message.status == "resolved" else f"It has lasted for {lasted}."
        return message.replace(text=f"{message.text}\n{line}" if message.text else line)


def _whole(length: timedelta) -> timedelta:
    return timedelta(seconds=length // timedelta(seconds=1))
