"""A memory for dry runs: nothing is in it at first, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class ThrowawayMemory:
    """A memory in which time stands still; it ends with the dry run."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._texts: dict[str, str] = {}
        self._members: dict[str, set[str]] = {}
        self.asked = False
        """Whether somebody asked what it remembers."""

    def first(self, key: str, within: timedelta) -> bool:  # noqa: ARG002 - the protocol's; no time passes
        """Say whether this is the first call for `key`."""
        return self.count(key, timedelta()) == 1

    def count(self, key: str, within: timedelta) -> int:  # noqa: ARG002 - the protocol's; no time passes
        """Count this call for `key`."""
        self.asked = True
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]

    def remember(self, key: str, value: str, within: timedelta) -> None:  # noqa: ARG002 - the protocol's; no time passes
        """Keep a text under `key`."""
        self._texts[key] = value

    def recall(self, key: str) -> str | None:
        """Give the text that is kept under `key`, or None."""
        self.asked = True
        return self._texts.get(key)

    def swap(self, key: str, old: str | None, new: str, within: timedelta) -> bool:  # noqa: ARG002 - the protocol's; no time passes
        """Keep `new` under `key` where `old` is kept there now."""
        self.asked = True
        if self._texts.get(key) != old:
            return False
        self._texts[key] = new
        return True

    def forget(self, key: str) -> None:
        """Forget what is known of `key`."""
        self._counts.pop(key, None)
        self._texts.pop(key, None)
        self._members.pop(key, None)

    def add(self, key: str, member: str, within: timedelta) -> Sequence[str]:  # noqa: ARG002 - the protocol's; no time passes
        """Make a text a member of `key`, and give all."""
        self._members.setdefault(key, set()).add(member)
        return self.members(key)

    def remove(self, key: str, member: str) -> None:
        """Let a text be no member of `key` any more."""
        self._members.get(key, set()).discard(member)

    def members(self, key: str) -> Sequence[str]:
        """Give the members of `key`."""
        self.asked = True
        return sorted(self._members.get(key, ()))
