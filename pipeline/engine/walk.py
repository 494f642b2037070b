"""A message's way through a dry run: where it is, what it waits for, and what goes on in its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.engine.journey import Change, Visit
from pipeline.message import Message, headline
from pipeline.plugin import Dropped, Stay, Window


@dataclass(slots=True)
class Walk:
    """A message on its way: `current` is None where it has ended, or goes on in another one's place."""

    message: Message
    current: Message | None
    changes: tuple[Change, ...] = ()
    visits: list[Visit] = field(default_factory=list)

    def end(self, visit: Visit) -> None:
        """End here."""
        self.visits.append(visit)
        self.current = None


@dataclass(slots=True)
class Waiting:
    """A message that waits in a window."""

    walk: Walk
    visit: Visit
    window: Window
    message: Message


class Released:
    """What left a window: messages that waited in it, and others that were made of them."""

    def __init__(self, waiting: Sequence[Waiting], left: Sequence[Message], out: Iterable[object]) -> None:
        waited = {one.message.id: one.message for one in waiting}
        self._itself = {message.id: message for message in left if waited.get(message.id) == message}
        self._made = [message for message in left if waited.get(message.id) != message]
        self._why: dict[str, str] = {}
        """By message id, and with an empty one for all that do not leave."""
        self._stays: set[str] = set()
        for one in out:
            if isinstance(one, Dropped):
                self._why[one.message.id if one.message else ""] = one.reason
            elif isinstance(one, Stay):
                self._stays.add(one.message.id)
        gone = (one for one in waiting if one.message.id not in self._itself and one.message.id not in self._stays)
        self._bearer = next(gone, waiting[0])
        """The one in whose place goes on what was made of them."""
        self._alone = len(waiting) == 1

    def instead_of(self, one: Waiting) -> list[Message]:
        """Give what goes on in place of a message."""
        itself = [self._itself[one.message.id]] if one.message.id in self._itself else []
        return itself + (self._made if one is self._bearer else [])

    def told(self, one: Waiting) -> str:
        """Say what becomes of a message."""
        if self.instead_of(one):
            return "; goes on here as if alone" if self._alone else "; goes on here"
        if one.message.id in self._stays:
            return "; waits on"
        if why := self._why.get(one.message.id) or self._why.get(""):
            return f"; then {why}"
        return f"; goes on in '{headline(self._bearer.walk.message)}'" if self._made else ""


def others(key: str, count: int) -> str:
    """Say with how many others a message waits."""
    of_key = f" of key '{key}'" if key else ""
    if count > 1:
        return f" with {count - 1} more{of_key}"
    return f" with the others{of_key}" if key else ""
