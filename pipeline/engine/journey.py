"""What a dry run tells: of each message its way, of each step what it did and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import Problem
from pipeline.message import Message

Did = Literal["passed", "changed", "dropped", "split", "held", "left out", "failed"]


@dataclass(frozen=True, slots=True)
class Change:
    """A field of a message, or one of its labels, that a filter changed; None where there was or is no such label."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a filter did with a message. `left out`: its `when:` does not hold, so the message passed it by."""

    step: str
    plugin: str
    place: str
    did: Did
    reason: str = ""
    changes: tuple[Change, ...] = ()
    parts: tuple[Journey, ...] = ()
    """Where the message was split: each part with the rest of its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a consumer would do with a message: `preview` is what it would send."""

    step: str
    plugin: str
    place: str
    did: Literal["would send", "left out", "failed"]
    reason: str = ""
    preview: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """A message as it came, and its way: filters, then consumers; these are empty where it did not come so far."""

    message: Message
    changes: tuple[Change, ...] = ()
    """How a part of a split message differs from the whole."""
    visits: tuple[Visit, ...] = ()
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the producer did not take the payload. `status` is what its sender would be answered."""

    status: int
    reason: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The outcome of a dry run."""

    pipeline: str
    producer: str
    refused: Refusal | None = None
    journeys: tuple[Journey, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the payload was refused, or a filter or a consumer raised."""
        return self.refused is not None or any(map(_failed, self.journeys))


def _failed(journey: Journey) -> bool:
    visits = any(visit.did == "failed" or any(map(_failed, visit.parts)) for visit in journey.visits)
    return visits or any(delivery.did == "failed" for delivery in journey.deliveries)
