"""The present moment: the machine's clock, or the one that a test pretends; with it what else a test wants to have repeatable."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import uuid_utils


@dataclass(frozen=True, slots=True)
class Pretence:
    """What a process goes by in place of its machine."""

    now: Callable[[], datetime]
    new_id: Callable[[], str]
    between: Callable[[float, float], float]


_pretence: Pretence | None = None


def now() -> datetime:
    """Give the present moment, in UTC: where a plugin has to know it, and the engine does not tell it."""
    return datetime.now(UTC) if _pretence is None else _pretence.now()


def new_id() -> str:
    """Give a new UUIDv7: ids sort by the time they were made."""
    return str(uuid_utils.uuid7()) if _pretence is None else _pretence.new_id()


def between(low: float, high: float) -> float:
    """Give a number between two, by chance: for jitter, never for a secret."""
    return random.uniform(low, high) if _pretence is None else _pretence.between(low, high)  # noqa: S311 - see above


@contextmanager
def pretending(pretence: Pretence) -> Iterator[None]:
    """Let all threads of this process go by this, until the block ends."""
    global _pretence  # noqa: PLW0603 - all threads are to see it; a context variable would be one thread's own
    before, _pretence = _pretence, pretence
    try:
        yield
    finally:
        _pretence = before
