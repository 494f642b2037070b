"""Cursors: what there was at the last poll, with all that it takes to say later that it is over."""

from __future__ import annotations

import time
from typing import Any, Self

import msgspec


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """An alert or a series that is there, as it was when it was told."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    data: dict[str, Any] = {}
    occasion: str = ""
    """What tells this time that it is there from earlier ones."""
    since: str = ""
    gone: str = ""
    """When a poll first missed it; empty while it is there."""


class Place:
    """What there was, by key, and its text. For each message that is told it is written again, so a change is put at its end."""

    def __init__(self, count: int = 0, seen: dict[str, Seen] | None = None) -> None:
        self.count = count
        """Grows by each poll that had something to tell: one that is repeated has the same, and so the same ids.

        Begins at the time of the first poll: what is told after a cursor was lost is not taken for a repeat.
        """
        self.seen = seen or {}
        self._written = ""
        self.settle()

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        """Read what `text` wrote: of a key that stands there several times the last counts, and null is over."""
        if not cursor:
            return cls(int(time.time()))
        count, written = msgspec.json.decode(cursor, type=tuple[int, dict[str, Seen | None]])
        return cls(count, {key: seen for key, seen in written.items() if seen is not None})

    def text(self) -> str:
        """Write it as a cursor."""
        return f"[{self.count},{{{self._written}}}]"

    def put(self, key: str, seen: Seen) -> None:
        """Note what is there."""
        self.seen[key] = seen
        self._add(_part(key, seen))

    def forget(self, key: str) -> None:
        """Note that it is over."""
        del self.seen[key]
        self._add(f'"{key}":null')

    def settle(self) -> None:
        """Write each key once."""
        self._written = ",".join(_part(key, seen) for key, seen in self.seen.items())

    def _add(self, part: str) -> None:
        self._written = f"{self._written},{part}" if self._written else part


def _part(key: str, seen: Seen) -> str:
    return f'"{key}":{msgspec.json.encode(seen).decode()}'
