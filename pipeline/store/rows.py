"""What the store keeps, as plain values: the rows that the engine hands over and gets back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from pipeline.errors import TemporaryError
from pipeline.message import Message


class Outcome(StrEnum):
    """What became of a message at a step."""

    DROPPED = "dropped"
    REPLACED = "replaced"
    """Other messages went on in its place: it was split, or left a window together with others."""
    PASSED = "passed"
    """It left a window as itself and went on."""
    HELD = "held"
    DELIVERED = "delivered"
    BURIED = "buried"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about a message at a step, when and why: one row for each message and step, the last decision wins.

    `attempt` counts the deliveries to a consumer, from 1; `since` is when the first of them failed, None if none did.
    `became` has the ids of the messages that went on in place of one that was REPLACED, the first hundred.
    """

    message_id: str
    pipeline: str
    step: str
    outcome: Outcome
    at: datetime
    attempt: int = 1
    since: datetime | None = None
    reason: str = ""
    became: tuple[str, ...] = ()


class Why(StrEnum):
    """Why a message is held."""

    SPOOL = "spool"
    """The broker was away: the message is to be published as soon as it is back."""
    FILTER = "filter"
    """A filter could not work now: the message is to be filtered again, from that step on."""
    WINDOW = "window"
    """A window filter lets it wait; all messages of the step's key leave together."""
    KEPT = "kept"
    """What a window filter keeps for a key, as the data of a message of its own; it leaves with the messages of that key."""
    RETRY = "retry"
    """A consumer could not take it now: it is to be delivered again."""
    ORDER = "order"
    """It stands in line, in a lane that an ordered consumer is behind."""


WINDOWS: Final = frozenset({Why.WINDOW, Why.KEPT})
"""Why what waits in a window does so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A message that waits in the store until it is due. One row for each (pipeline, step, message id).

    `step` is the label of the step it waits for; empty: the pipeline's first filter. `attempt` is that of the
    delivery or filtering to come. `revision` is the configuration's under which it was accepted.
    """

    message: Message
    pipeline: str
    step: str
    why: Why
    due: datetime
    key: str = ""
    attempt: int = 1
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A held message that a clock may publish now, until its lease ends; then another clock may claim it."""

    row: int
    owner: str
    held: Held


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be held in place of claims, of which each has to be its owner's still."""

    claims: Sequence[Claim]
    held: Sequence[Held]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lined:
    """A message for the end of a lane: with those of its key, before a consumer or behind the filter that `step` names.

    An empty `step`: before the pipeline's first filter. `due` is when a lane that is empty now can go on.
    """

    message: Message
    pipeline: str
    step: str
    due: datetime
    attempt: int = 1
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneClaim:
    """The first messages of some lanes of one step, each lane's in order, which its claimant may put on the queue."""

    token: str
    pipeline: str
    step: str
    revision: str
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A message that a worker has of a lane."""

    row: int
    lane: str
    message_id: str
    attempt: int
    """The attempt to be made."""
    deaths: int
    """How many workers died over this message alone."""


@dataclass(frozen=True, slots=True)
class LaneBack:
    """A message that stays the first of its lane, until it is due; `row.attempt` is the next one."""

    row: LaneRow
    due: datetime
    parked: bool = False
    """Whether it waits for its consumer's circuit: closing that lets it go on earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """What a worker did in its lanes: `done` leaves them, and what is in `back` waits.

    `strict`: nothing of it is written where one of the lanes is not its own any more.
    """

    worker: str
    lanes: Sequence[str]
    now: datetime
    done: Sequence[LaneRow] = ()
    back: Sequence[LaneBack] = ()
    strict: bool = False


class LanesLostError(TemporaryError):
    """A worker held its lanes for longer than its lease: another one does, or did, the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A message as it was accepted, before the first filter. One row for each (pipeline, message id): the first stays."""

    message: Message
    pipeline: str
    at: datetime
    """When it was first worked on."""


@dataclass(frozen=True, slots=True)
class AcceptedSpan:
    """How many messages of a pipeline are kept, and from when to when they were worked on."""

    count: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up at a step, with the reason. One row for each (pipeline, step, message id)."""

    message: Message
    pipeline: str
    step: str
    error: str
    """One line: what a person reads first."""
    traceback: str = ""
    """Where a bug was the cause."""
    attempts: int = 1
    at: datetime
    edited: datetime | None = None
    """When a person last changed the message here; None: it is as it was when it failed."""

    def record(self) -> Record:
        """Give the record that says so."""
        return Record(
            message_id=self.message.id,
            pipeline=self.pipeline,
            step=self.step,
            outcome=Outcome.BURIED,
            at=self.at,
            attempt=self.attempts,
            reason=self.error,
        )

    @property
    def place(self) -> str:
        """Where it stands in the list: what `Store.dead_letters(before=…)` and `redrive(after=…)` take to go on behind it."""
        return f"{self.at.isoformat()}/{self.message.id}/{self.pipeline}/{self.step}"

    @property
    def version(self) -> str:
        """A word that becomes another one whenever the letter is edited, or given up again."""
        edited = f"-{self.edited.timestamp():.6f}" if self.edited else ""
        return f"{self.at.timestamp():.6f}-{self.attempts}{edited}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of an API key; the key itself is never stored."""

    name: str
    prefix: str
    """The key's first characters, by which a person recognises it."""
    digest: str
    """SHA-256 of the whole key, in hex."""
    scopes: frozenset[str]
    """`intake` to post messages, `api` to read and steer."""
    created: datetime
    expires: datetime | None = None


class CircuitState(StrEnum):
    """Whether a consumer is called: the words are those of an electric circuit."""

    CLOSED = "closed"
    """It is called."""
    HALF_OPEN = "half-open"
    """One worker tries it with one message; the others wait for what comes of it."""
    OPEN = "open"
    """It failed again and again: nobody calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """How a consumer's service is, as all workers see it."""

    pipeline: str
    step: str
    state: CircuitState = CircuitState.CLOSED
    failures: int = 0
    """Temporary errors since the last success."""
    openings: int = 0
    """How many times it was opened since it was last closed: the wait doubles with each."""
    since: datetime
    """When this state began; half-open: when the circuit was opened first."""
    until: datetime
    """Open: when it is tried next. Half-open: when another worker may try it, because this one seems to have died."""
    error: str = ""
    """The last temporary error, masked."""
    version: int = 0
    """Counts the changes: one is made over the version that was read, or not at all."""
