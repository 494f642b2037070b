"""What a memory is: what all kinds of it promise, and how the keys of a step are named in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Final, Protocol

from pipeline.plugin import Memory

SLACK: Final = timedelta(milliseconds=500)
"""So much of what a rate allowed, and was not used, can be made up for."""
MOST_MEMBERS: Final = 1000
"""Members that a key may have."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The answer to `MemoryBackend.reserve`: times from now on, each further message an interval later."""

    granted: int
    """So many may go, those that come again before the others."""
    first: timedelta
    """When the first of them may go; it may be past."""
    line: timedelta
    """When about the first of the others can hope for its turn."""


class MemoryBackend(Protocol):
    """Where the memories of all steps are. Safe with threads, and after fork. Methods may raise TemporaryError."""

    def scoped(self, pipeline: str, step: str, asker: str = "") -> Memory:
        """Give a step's memory.

        With the id of the message that is filtered as `asker`, `first` and `count` give a message that comes again,
        because its worker died or the broker was away, the same answer for a key as before: else it would be taken for
        its own duplicate, or be counted until there are too many of it.
        """

    def reserve(
        self, pipeline: str, step: str, interval: timedelta, patience: timedelta, *, again: int, fresh: int
    ) -> Reservation:
        """Give messages of a step their turns, one in each interval, over all who ask.

        Only turns within `patience` are given. The others stand in a line and ask `again` when their turn comes near;
        nothing is reserved for them, but as long as there is a line none that is `fresh` is given a turn.
        """

    def purge(self) -> int:
        """Delete what is over, up to 200,000 entries; give their number. Called now and then; asks the server in any case."""

    def close(self) -> None:
        """Close the connections."""


class Keyed(Protocol):
    """What a backend does for keys that are digests."""

    def first(self, digest: str, within: timedelta, asker: str) -> bool:
        """Start a window where there is none; say whether this asker started it."""

    def count(self, digest: str, within: timedelta, asked: str | None) -> int:
        """Count up in a window, starting it where there is none; or give again what was noted under `asked`."""

    def remember(self, digest: str, value: str, within: timedelta) -> None:
        """Keep a text."""

    def recall(self, digest: str) -> str | None:
        """Give the text, or None."""

    def swap(self, digest: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep a text in place of the one that is expected there."""

    def forget(self, *digests: str) -> None:
        """Delete windows, texts and members."""

    def add(self, digest: str, member: str, within: timedelta) -> list[str]:
        """Make a text a member, let those beyond the bound go, and give all there are."""

    def remove(self, digest: str, member: str) -> None:
        """Let a text be no member any more."""

    def members(self, digest: str) -> list[str]:
        """Give the members."""


class Scoped:
    """One step's memory. Keys are stored as digests: they may be long, and may hold what is nobody's business."""

    def __init__(self, backend: Keyed, place: tuple[str, str], asker: str) -> None:
        self._backend = backend
        self._place = place
        self._asker = asker

    def first(self, key: str, within: timedelta) -> bool:
        """Say whether this is the first call for `key` in the last `within`."""
        return self._backend.first(self._digest("first", key), within, self._asker)

    def count(self, key: str, within: timedelta) -> int:
        """Count this call in the window of `key`."""
        asked = self._digest("asked", f"{self._asker}\0{key}") if self._asker else None
        return self._backend.count(self._digest("count", key), within, asked)

    def remember(self, key: str, value: str, within: timedelta) -> None:
        """Keep a text under `key`."""
        self._backend.remember(self._digest("text", key), value, within)

    def recall(self, key: str) -> str | None:
        """Give the text under `key`."""
        return self._backend.recall(self._digest("text", key))

    def swap(self, key: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep a text in place of the one that is expected."""
        return self._backend.swap(self._digest("text", key), old, new, within)

    def forget(self, key: str) -> None:
        """Forget what is known of `key`."""
        self._backend.forget(*(self._digest(kind, key) for kind in ("first", "count", "text", "members")))

    def add(self, key: str, member: str, within: timedelta) -> Sequence[str]:
        """Make a text a member of `key`."""
        return sorted(self._backend.add(self._digest("members", key), member, within))

    def remove(self, key: str, member: str) -> None:
        """Let a text be no member of `key` any more."""
        self._backend.remove(self._digest("members", key), member)

    def members(self, key: str) -> Sequence[str]:
        """Give the members of `key`."""
        return sorted(self._backend.members(self._digest("members", key)))

    def _digest(self, kind: str, key: str) -> str:
        names = "\0".join((*self._place, kind, key)).encode(errors="surrogatepass")
        return blake2b(names, digest_size=16).hexdigest()


def rate_digest(pipeline: str, step: str, interval: timedelta) -> str:
    """Name a rate; another rate begins anew, for its predecessor's line would be measured by the wrong interval."""
    return blake2b("\0".join((pipeline, step, "rate", str(interval))).encode(), digest_size=16).hexdigest()


def microseconds(time: timedelta) -> int:
    """Give a time in microseconds, at least one."""
    return max(1, time // timedelta(microseconds=1))


def milliseconds(within: timedelta) -> int:
    """Give a time in milliseconds, at least one."""
    return max(1, math.ceil(within / timedelta(milliseconds=1)))
