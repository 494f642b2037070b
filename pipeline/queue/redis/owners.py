"""Finds the owners of claims that are gone, by watching whether they give signs of life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUNDS: Final = 6
"""Looks in a row that find no new sign of life of an owner, after which it is gone."""


class Watch:
    """What one process has seen of all owners. Nothing is concluded from a time in which nobody could look.

    A sign of life is a number that its owner raises once in `beat` seconds. No clock of Redis or of another machine
    matters, and after Redis, or this process, stood still for a while, everyone has the full time again.
    """

    def __init__(self, beat: float) -> None:
        self._beat = beat
        self._looked = 0.0
        self._seen: dict[bytes, tuple[bytes, int]] = {}

    def look(self, beats: Mapping[bytes, bytes], now: float) -> list[tuple[bytes, bytes]]:
        """Take what Redis says of all owners at a monotonic time; gives those that are gone, with their last number."""
        before = self._seen if now - self._looked <= 2 * self._beat else {}
        self._looked = now
        self._seen = {}
        for owner, number in beats.items():
            last, rounds = before.get(owner, (None, 0))
            self._seen[owner] = (number, rounds + 1 if number == last else 0)
        return [(owner, number) for owner, (number, rounds) in self._seen.items() if rounds >= ROUNDS]
