"""What a step may remember."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol


class Memory(Protocol):
    """What a step may remember, and what may be forgotten: losing it costs a duplicate at worst, never a message.

    Each step sees its own keys only. Shared by all workers. Methods may raise `TemporaryError`.
    """

    def first(self, key: str, within: timedelta) -> bool:
        """Say whether this is the first call for `key` in the last `within`; such a call starts a new window."""

    def count(self, key: str, within: timedelta) -> int:
        """Count this call, and give how many there were for `key` since its window began; a window lasts `within`."""

    def remember(self, key: str, value: str, within: timedelta) -> None:
        """Keep a short text under `key` for `within`, in place of what was there."""

    def recall(self, key: str) -> str | None:
        """Give the text that is kept under `key`, or None."""

    def swap(self, key: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep `new` under `key` for `within` where `old` is kept there now, None: nothing; else change nothing. Say which.

        Nobody comes between the look and the change. Where it says no, `recall` gives what somebody else kept meanwhile.
        """

    def forget(self, key: str) -> None:
        """Forget what is known of `key`: the next `first` is true, the next `count` is 1, no text is kept, no member left."""

    def add(self, key: str, member: str, within: timedelta) -> Sequence[str]:
        """Make a short text a member of `key` for `within`, from now on anew, and give all there are now, in order of text.

        A key has a thousand members at most: then the one that would expire first goes.
        """

    def remove(self, key: str, member: str) -> None:
        """Let a text be no member of `key` any more."""

    def members(self, key: str) -> Sequence[str]:
        """Give the members of `key`, in order of text."""
