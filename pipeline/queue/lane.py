"""One queue as a worker sees it: what came of it from the broker, what is under way, and what waits for its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Turn(Protocol):
    """A batch that came from the broker, as it waits for its turn."""

    id: str

    @property
    def queue(self) -> str:
        """The queue it came from."""

    @property
    def size(self) -> int:
        """Its bytes, those of what it has taken along included."""

    @property
    def kind(self) -> object:
        """What it has in common with those that it may take along; None where it takes none."""

    @property
    def begun(self) -> bool:
        """Whether the pool has told that one of its processes or threads works on it."""

    def acknowledge(self) -> None:
        """Tell the broker that it is done. Calls `Turns.went`."""

    def take_along(self, other: Turn, full: int = 1) -> bool:
        """Be started as one with another that waits, if they are alike and no more than so many full ones; tell that."""


@dataclass(slots=True, eq=False)
class Came:
    """A batch that came, and how it is started."""

    turn: Turn
    start: Callable[[], None]
    along: bool = False
    """Whether it was started with another, and has no place of its own."""
    came: float = 0.0
    """When it came, by the monotonic clock."""
    started: float = 0.0
    """When it was started, by the same clock."""


@dataclass(slots=True)
class Lane:
    """One queue: what of it is under way, and what waits."""

    share: int
    """How many batches of it may be worked on at once."""
    most: int
    """How many of it the worker takes in advance, those under way included: together with others counts once."""
    running: int = 0
    along: int = 0
    """How many are under way together with others, beyond those that have a place."""
    held: set[Turn] = field(default_factory=set)
    """What came by this connection, and the broker waits to be told about: it fills the window."""
    waiting: deque[Came] = field(default_factory=deque)
    paused: bool = False
    last: Came | None = None
    """What was started last, until it ends."""
    quick: object = None
    """The kind of which a full batch was filtered quickly, the last time."""
