"""Cursors: what there was at the last poll, with all that it takes to say later that it is over."""

from __future__ import annotations

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
    """What there was, by key. It is written for each message that is told, so each part of it is written once and kept."""

    def __init__(self, count: int = 0, seen: dict[str, Seen] | None = None) -> None:
        self.count = count
        """How many polls had something to tell: a poll that is repeated has the same, and so the same ids."""
        self.seen = seen or {}
        self._written: dict[str, str] = {key: _part(key, one) for key, one in self.seen.items()}

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        """Read what `text` wrote."""
        return cls(*msgspec.json.decode(cursor, type=tuple[int, dict[str, Seen]])) if cursor else cls()

    def text(self) -> str:
        """Write it as a cursor."""
        return f"[{self.count},{{{','.join(self._written.values())}}}]"

    def put(self, key: str, seen: Seen) -> None:
        """Note what is there."""
        self.seen[key] = seen
        self._written[key] = _part(key, seen)

    def forget(self, key: str) -> None:
        """Note that it is over."""
        del self.seen[key], self._written[key]

    def clear(self) -> None:
        """Forget everything."""
        self.seen.clear()
        self._written.clear()


def _part(key: str, seen: Seen) -> str:
    return f'"{key}":{msgspec.json.encode(seen).decode()}'
