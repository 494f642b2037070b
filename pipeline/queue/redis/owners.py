"""Names the owners of claims, and finds those that are gone by watching whether they give signs of life."""

from __future__ import annotations

import os
import socket
from math import ceil
from typing import TYPE_CHECKING, Final
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUNDS: Final = 6
"""Pauses between signs of life that an owner may let pass, after which it is gone."""
LONGEST: Final = 3600.0
"""Seconds: the longest pause between signs of life that an owner can name."""


def new_owner(beat: float) -> str:
    """Give a name for an owner that gives a sign of life every `beat` seconds; it says where the owner is, for people."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}:{beat:g}"


def beat_of(owner: str) -> float:
    """Give the pause between signs of life that an owner names, in seconds; one that names none has the longest."""
    try:
        return min(max(float(owner.rpartition(":")[2]), 0.0), LONGEST)
    except ValueError:
        return LONGEST


class Watch:
    """What one process has seen of all owners. Nothing is concluded from a time in which nobody could look.

    A sign of life is a number that its owner raises, as often as its name says. No clock of Redis or of another machine
    matters, and after Redis, or this process, stood still for a while, everyone has the full time again.
    """

    def __init__(self, beat: float) -> None:
        self._beat = beat
        self._looked = 0.0
        self._seen: dict[str, tuple[bytes, int]] = {}

    def look(self, beats: Mapping[str, bytes], now: float) -> list[str]:
        """Take what Redis says of all owners, at a monotonic time, once in `beat` seconds; gives those that are gone."""
        before = self._seen if now - self._looked <= 2 * self._beat else {}
        self._looked = now
        self._seen = {}
        for owner, number in beats.items():
            last, rounds = before.get(owner, (None, 0))
            self._seen[owner] = (number, rounds + 1 if number == last else 0)
        return [owner for owner, (_, rounds) in self._seen.items() if rounds >= self._patience(owner)]

    def _patience(self, owner: str) -> int:
        return ROUNDS * max(1, ceil(beat_of(owner) / self._beat))
