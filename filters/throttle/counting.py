"""What `throttle` remembers of a key's window: what it let pass, which message waits for its end, and what it dropped."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, Literal, TypeVar

import msgspec

from pipeline import Memory, Message, TemporaryError, derived_id, gravity, shorten

MOST_PASSED: Final = 1000
MOST_KINDS: Final = 10
LONGEST_TITLE: Final = 100
AFTER: Final = timedelta(hours=1)
"""So long after its end a window is still known: a message may come again, as its worker died, and a clock may have been down."""
TRIES: Final = 1000
"""Each try that fails means that another worker was faster."""

S = TypeVar("S")


class Kind(msgspec.Struct, frozen=True, array_like=True):
    """How often a title came with a severity."""

    severity: str
    title: str
    count: int


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """What a window dropped: how many, and of which kinds; what is of an eleventh kind is in the number alone."""

    number: int = 0
    worst: str = ""
    """The highest severity of them."""
    kinds: list[Kind] = []
    closed: bool = False
    """The summary is made: what comes now belongs to the next window."""

    def plus(self, message: Message) -> Tally:
        """Give it with one message more."""
        counts = {(kind.severity, kind.title): kind.count for kind in self.kinds}
        at = (message.severity, shorten(message.title, LONGEST_TITLE))
        if at in counts or len(counts) < MOST_KINDS:
            counts[at] = counts.get(at, 0) + 1
        worst = max(self.worst, message.severity, key=lambda severity: (gravity(severity), bool(severity)))
        return Tally(self.number + 1, worst, [Kind(*kind, count) for kind, count in counts.items()])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands in its window: among those that pass, as the one that waits for its end, or behind that."""

    where: Literal["passes", "waits", "behind"]
    until: datetime


class _Window(msgspec.Struct, frozen=True, array_like=True):
    until: datetime
    passed: list[str] = []
    """Digests of the messages that it let pass: one that comes again passes again."""
    carrier: str = ""
    """The first message that was too many; the others are counted under its id."""

    def place(self, message: Message) -> Place | None:
        """Give the place that a message has already."""
        if self.carrier == message.id:
            return Place("waits", self.until)
        return Place("passes", self.until) if _digest(message.id) in self.passed else None

    def next(self, message: Message, most: int) -> tuple[_Window, Place] | None:
        """Give the window with the message in the next place, and that place; None where all are taken."""
        if len(self.passed) < most:
            return _Window(self.until, [*self.passed, _digest(message.id)]), Place("passes", self.until)
        return None if self.carrier else (_Window(self.until, self.passed, message.id), Place("waits", self.until))


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts messages in windows. Methods raise `TemporaryError` where the memory is away."""

    memory: Memory
    most: int
    within: timedelta
    waiting: bool
    """Whether a message waits for the window's end."""

    def place(self, message: Message, key: str, now: datetime) -> Place:
        """Give a message its place in the key's window; it keeps that when it comes again."""
        closed = ""
        for _ in range(TRIES):
            known = self.memory.recall(key)
            there = _read(_Window, known)
            if there is not None and (place := there.place(message)):
                return place
            if there is None or now >= there.until or (closed and there.carrier == closed):
                there = _Window(now + self.within)
            full = not self.waiting and len(there.passed) >= self.most
            after = None if full else there.next(message, self.most)
            if after is not None:
                if self._taken(key, known, after[0], message, now):
                    return after[1]
            elif full or self._counted(message, there, now):
                return Place("behind", there.until)
            else:  # the clock that opened it was ahead of ours
                closed = there.carrier
        raise TemporaryError("too many messages at once: they could not be counted")

    def close(self, carrier: Message) -> Tally:
        """Give what a window dropped, the message that waited included; nothing is added to it any more."""
        key = _tally_key(carrier.id)
        for _ in range(TRIES):
            known = self.memory.recall(key)
            tally = _read(Tally, known) or Tally().plus(carrier)
            if tally.closed or self._swapped(key, known, msgspec.structs.replace(tally, closed=True), AFTER):
                return tally
        raise TemporaryError("too many messages at once: they could not be counted")

    def _taken(self, key: str, known: str | None, after: _Window, message: Message, now: datetime) -> bool:
        """Give a message the next place in the window; the one that waits is the first that its summary counts."""
        if after.carrier == message.id:
            self._swapped(_tally_key(waiting_id(message.id, after.until)), None, Tally().plus(message), _lasting(after, now))
        return self._swapped(key, known, after, _lasting(after, now))

    def _counted(self, message: Message, there: _Window, now: datetime) -> bool:
        """Count a message that came behind the one that waits; false where that has left."""
        key = _tally_key(waiting_id(there.carrier, there.until))
        for _ in range(TRIES):
            known = self.memory.recall(key)
            tally = _read(Tally, known) or Tally()
            if tally.closed:
                return False
            if self._swapped(key, known, tally.plus(message), _lasting(there, now)):
                return True
        raise TemporaryError("too many messages at once: they could not be counted")

    def _swapped(self, key: str, known: str | None, new: msgspec.Struct, within: timedelta) -> bool:
        return self.memory.swap(key, known, msgspec.json.encode(new).decode(), within)


def waiting_id(carrier: str, until: datetime) -> str:
    """Give the id under which a message waits for a window's end: one that is sent again waits in the next window anew."""
    return derived_id(carrier, until.isoformat())


def _read(kind: type[S], known: str | None) -> S | None:
    try:
        return None if known is None else msgspec.json.decode(known, type=kind)
    except msgspec.DecodeError:  # another version wrote it otherwise
        return None


def _lasting(window: _Window, now: datetime) -> timedelta:
    return max(window.until - now, timedelta()) + AFTER


def _tally_key(carrier: str) -> str:
    return f"after {carrier}"


def _digest(message_id: str) -> str:
    return base64.b64encode(blake2b(message_id.encode(), digest_size=9).digest()).decode()
