"""What was decided about the messages of a batch, collected until it is written to the store in one transaction."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from pipeline.engine.retry import NotTriedError, next_attempt
from pipeline.errors import PipelineError, TemporaryError
from pipeline.message import Message
from pipeline.spec.model import Retry
from pipeline.store import Store
from pipeline.store.rows import Accepted, DeadLetter, Held, Lined, Outcome, Record, Why, Worked
from pipeline.telemetry import DECIDED

log = structlog.get_logger()

Now = Callable[[], datetime]

MOST_NAMED: Final = 100
"""Messages that a record names as those that went on in place of its own."""


def utc_now() -> datetime:
    """Give the present moment."""
    return datetime.now(UTC)


@dataclass
class Decisions:
    """Decisions about messages of one pipeline, made at one moment, under one revision of the configuration."""

    pipeline: str
    revision: str
    now: datetime
    mask: Callable[[str], str] = str
    """Hides the secrets of the pipeline's plugins in what they raised."""
    records: list[Record] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    lined: list[Lined] = field(default_factory=list)
    """What is to stand in line."""
    worked: Worked | None = None
    """What was done of what stood in line."""
    accepted: list[Accepted] = field(default_factory=list)
    """Messages that are kept as they were accepted."""
    _patient: set[tuple[str, str]] = field(default_factory=set)
    """Messages and steps that wait without having failed."""

    def record(
        self,
        message: Message,
        step: str,
        outcome: Outcome,
        *,
        reason: str = "",
        attempt: int = 1,
        since: datetime | None = None,
        became: Sequence[Message] = (),
    ) -> None:
        """Note what became of a message at a step; of those that went on in its place the first hundred are named."""
        self.records.append(
            Record(
                message_id=message.id,
                pipeline=self.pipeline,
                step=step,
                outcome=outcome,
                at=self.now,
                attempt=attempt,
                since=since,
                reason=reason,
                became=tuple(other.id for other in became[:MOST_NAMED]),
            )
        )

    def keep(self, messages: Sequence[Message]) -> None:
        """Have messages kept as they were accepted; of one that is kept already the first stays."""
        self.accepted += [Accepted(message=message, pipeline=self.pipeline, at=self.now) for message in messages]

    def hold(self, message: Message, step: str, why: Why, due: datetime, *, key: str = "", attempt: int = 1) -> None:
        """Let the message wait for a step until it is due."""
        self.held.append(
            Held(
                message=message,
                pipeline=self.pipeline,
                step=step,
                why=why,
                due=due,
                key=key,
                attempt=attempt,
                revision=self.revision,
            )
        )

    def bury(
        self, message: Message, step: str, error: Exception | str, *, attempt: int = 1, since: datetime | None = None
    ) -> None:
        """Give the message up at a step; the traceback is kept unless the error is one that Siftbell understands."""
        known = isinstance(error, str | PipelineError)
        text = self.mask(str(error) if known else f"{type(error).__name__}: {error}")
        self.dead.append(
            DeadLetter(
                message=message,
                pipeline=self.pipeline,
                step=step,
                error=text,
                traceback="" if isinstance(error, str) or known else self.mask("".join(traceback.format_exception(error))),
                attempts=attempt,
                at=self.now,
            )
        )
        self.record(message, step, Outcome.BURIED, reason=text, attempt=attempt, since=since)

    def fail(
        self,
        message: Message,
        step: str,
        error: Exception,
        *,
        why: Why,
        retry: Retry,
        attempt: int = 1,
        since: datetime | None = None,
    ) -> None:
        """Hold the message for another attempt where the error is temporary and `retry` allows it, else bury it."""
        if not isinstance(error, TemporaryError):
            self.bury(message, step, error, attempt=attempt, since=since)
            return
        if isinstance(error, NotTriedError):
            self._wait(message, step, error, why=why, retry=retry, attempt=attempt, since=since)
            return
        since = since or self.now
        due = next_attempt(error, attempt=attempt, since=since, now=self.now, retry=retry)
        if due is None:
            self.bury(message, step, f"given up after {_attempts(attempt)}: {error}", attempt=attempt, since=since)
            return
        self.hold(message, step, why, due, attempt=attempt + 1)
        self.record(message, step, Outcome.HELD, reason=self.mask(str(error)), attempt=attempt, since=since)

    def _wait(
        self, message: Message, step: str, error: NotTriedError, *, why: Why, retry: Retry, attempt: int, since: datetime | None
    ) -> None:
        """Hold a message that was not tried: the attempt is still to be made, and the record tells of those before it."""
        since = (since or self.now) if error.counts else since
        if error.counts and since is not None and self.now >= since + retry.lasting:
            self.bury(
                message, step, f"given up after {_attempts(attempt - 1)}: {error.because}", attempt=attempt - 1, since=since
            )
            return
        due = error.until or self.now
        if error.counts and since is not None:
            due = min(due, since + retry.lasting)
        self.hold(message, step, why, due, key=error.key, attempt=attempt)
        self.record(message, step, Outcome.HELD, reason=self.mask(str(error)), attempt=attempt - 1, since=since)
        self.is_patient(message, step)

    def is_patient(self, message: Message, step: str) -> None:
        """Note that a message that is held waits as it is meant to, and has not failed."""
        self._patient.add((message.id, step))

    def add(self, others: Decisions) -> None:
        """Take over the decisions that were made about other messages."""
        self.records += others.records
        self.held += others.held
        self.dead += others.dead
        self.accepted += others.accepted
        self._patient |= others._patient

    def settle(self, store: Store) -> None:
        """Write all decisions in one transaction, then count them and log what went wrong."""
        if self.worked is not None or self.records or self.held or self.dead or self.accepted:
            store.settle(
                records=self.records,
                held=self.held,
                dead=self.dead,
                lined=self.lined,
                worked=self.worked,
                accepted=self.accepted,
            )
        for (step, outcome), count in Counter((record.step, record.outcome) for record in self.records).items():
            DECIDED.labels(self.pipeline, step, outcome.value).inc(count)
        self._tell()

    def _tell(self) -> None:
        """Log what failed: a line for each step and outcome, with the first message's id and reason, however many there are."""
        as_meant = self._patient | {(held.message.id, held.step) for held in self.held if held.why is Why.WINDOW}
        failed: dict[tuple[str, Outcome], list[Record]] = {}
        for record in self.records:
            if record.outcome in {Outcome.BURIED, Outcome.HELD} and (record.message_id, record.step) not in as_meant:
                failed.setdefault((record.step, record.outcome), []).append(record)
        for (step, outcome), records in failed.items():
            first = records[0]
            words = {"pipeline": self.pipeline, "step": step, "messages": len(records), "message": first.message_id}
            if outcome is Outcome.BURIED:
                log.error("buried; `siftbell dead-letters` has it", **words, error=first.reason)
            else:
                log.warning("held, to be tried again", **words, attempt=first.attempt, error=first.reason)


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def bury_all(
    store: Store,
    pipeline: str,
    revision: str,
    step: str,
    messages: Sequence[Message],
    error: str,
    now: datetime,
    *,
    attempt: int = 1,
) -> None:
    """Give up messages that stand where the configuration no longer has a place for them."""
    decisions = Decisions(pipeline, revision, now)
    for message in messages:
        decisions.bury(message, step, error, attempt=attempt)
    decisions.settle(store)
