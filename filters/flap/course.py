"""The course of a key's status: what of it is kept, and how often it has changed."""

from __future__ import annotations

from bisect import bisect_left, insort_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import msgspec

from pipeline import Message

MOST: Final = 64
"""Moments of the status that are kept of a key: two for each change, and as many as the most that may be asked for."""


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """When somebody said that something fires, or does not."""

    time: datetime
    firing: bool


class Known(msgspec.Struct, omit_defaults=True):
    """What is kept of a key."""

    course: list[Moment] = []
    """In order of time: the first and the last moment of each stretch of one status."""
    told: bool | None = None
    """Whether what was told last fires; None where nothing was."""
    waits: str = ""
    """The id of the message that waits: a resolve, or while it flaps the newest."""
    began: datetime | None = None
    """When it began to flap; None where it does not."""
    changes: int = 0
    """How often the status has changed since."""
    severity: str = ""
    """The gravest that was told since."""
    seen: datetime | None = None
    """When it was seen here that the status had changed."""
    heard: datetime | None = None
    """When the newest message came."""


class Course:
    """The statuses of a key by the time at which they were said, in whichever order they come."""

    def __init__(self, moments: Sequence[Moment], within: timedelta) -> None:
        self._moments = list(moments)
        self._within = within

    @property
    def moments(self) -> list[Moment]:
        """What is to be kept of it."""
        return self._moments

    @property
    def newest(self) -> Moment | None:
        """The last that is known."""
        return self._moments[-1] if self._moments else None

    @property
    def since(self) -> datetime | None:
        """Since when the status is what it is, as far back as it is known."""
        found = None
        for moment in reversed(self._moments):
            if moment.firing is not self._moments[-1].firing:
                break
            found = moment.time
        return found

    @property
    def span(self) -> timedelta:
        """How long the known changes took."""
        return self.since - self.began if self.since and self.began else timedelta()

    @property
    def began(self) -> datetime | None:
        """When the first of the known changes was."""
        changed = (after.time for before, after in pairwise(self._moments) if before.firing is not after.firing)
        return next(changed, None)

    @property
    def changes(self) -> int:
        """How often the status has changed."""
        return sum(before.firing is not after.firing for before, after in pairwise(self._moments))

    def add(self, message: Message, time: datetime) -> int:
        """Put what a message says in its place, and give how many changes that adds; what is too old or known adds none."""
        moment, before = Moment(time, message.status == "firing"), self.changes
        if moment in self._moments or (self.newest is not None and time < self.newest.time - self._within):
            return 0
        insort_right(self._moments, moment, key=lambda one: one.time)
        added = self.changes - before
        self._forget()
        return added

    def begin_anew(self) -> None:
        """Forget all changes: the status counts from here."""
        self._moments = self._moments[-1:]

    def _forget(self) -> None:
        """Leave out what lies inside a stretch of one status, and what is too old, but for the last of it."""
        moments = self._moments
        ends = [
            one
            for index, one in enumerate(moments)
            if index in (0, len(moments) - 1) or not moments[index - 1].firing is one.firing is moments[index + 1].firing
        ]
        oldest = moments[-1].time - self._within
        first = bisect_left(ends, oldest, key=lambda one: one.time)
        self._moments = ends[max(0, first - 1) :][-MOST:]
