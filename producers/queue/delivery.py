"""What a foreign queue hands over, and what a system has to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Delivery:
    """One raw message."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """What came beside the body, by names in lower case: `content-type`, the sender's own, and what the system tells of it."""
    name: str = ""
    """What the system calls it, the same when it comes again; empty where it has no name."""
    time: datetime | None = None
    """When it was sent, the same when it comes again."""
    tag: Any = None
    """What the system acknowledges it by."""
    problem: str = ""
    """Why it cannot be read, where its system knows."""


class System(Protocol):
    """A connection to a foreign queue, one thread's own. Its methods raise a `PipelineError` when it is of no use any more."""

    def receive(self) -> Sequence[Delivery]:
        """Give what is there, up to `prefetch`; waits for the first for half a second."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the other side that these are ours."""

    def close(self) -> None:
        """Let go of what was not acknowledged, so that it comes again soon, and end the connection."""
