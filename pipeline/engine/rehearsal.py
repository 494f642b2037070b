"""The rehearsal: a test message for a consumer, on the way that every message goes, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from pipeline.engine.batch import DELIVER_QUEUE
from pipeline.engine.explain import explain
from pipeline.engine.explanation import Entry, State
from pipeline.engine.routes import delivery
from pipeline.engine.runner import Runner
from pipeline.message import Message, new_id
from pipeline.spec.model import ConsumerStep, PipelineSpec

LABEL: Final = "siftbell_test"
"""The label that a test message bears."""
_LOOKS: Final = 0.1
"""Seconds between two looks at the record."""


@dataclass(frozen=True, slots=True)
class Part:
    """A consumer that gets a test message."""

    spec: PipelineSpec
    step: ConsumerStep

    @property
    def name(self) -> str:
        """Its pipeline and label."""
        return f"{self.spec.name}/{self.step.label}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test message; `entry` is None where no worker has taken it, `seconds` from the queue to the record."""

    part: Part
    message_id: str
    entry: Entry | None = None
    seconds: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the other side has it."""
        return self.entry is not None and self.entry.state is State.DELIVERED


def make_message(part: Part, labels: Mapping[str, str] = {}) -> Message:
    """Make a test message. Its key is its own, so that it follows up on nothing and stands in nobody's line."""
    message_id = new_id()
    return Message(
        id=message_id,
        source="siftbell",
        type="test",
        title=f"Test of Siftbell: consumer {part.step.label} of pipeline {part.spec.name}",
        text="Somebody called `siftbell consumers test`. Nothing has happened, and nothing is to be done.",
        severity="info",
        labels={**labels, LABEL: "true"},
        key=f"siftbell-test-{message_id}",
    )


def rehearse(runner: Runner, parts: Sequence[Part], within: float, labels: Mapping[str, str] = {}) -> list[Outcome]:
    """Queue a test message for each consumer, and give what became of each, after so many seconds at the latest.

    It goes to the consumer's own queue: filters, and the consumer's `when`, do not see it. What is not delivered then stays
    where it is, as any message does. Raises `TemporaryError` where the queue or the store is away.
    """
    waiting: dict[str, tuple[Part, datetime]] = {}
    for part in parts:
        message = make_message(part, labels)
        waiting[message.id] = part, runner.now()
        runner.publish(delivery(part.spec.name, part.step, [message], revision=part.spec.revision))
    if any(part.step.ordered for part in parts):
        runner.lanes.go_on(len(parts))  # they stand in line in the store
    found: dict[str, Outcome] = {}
    deadline, end = runner.now() + timedelta(seconds=within), monotonic() + within
    while True:
        over = monotonic() >= end
        for message_id, (part, start) in waiting.items():
            if message_id not in found and (entry := _settled(runner, part, message_id, deadline, over=over)):
                seconds = max(0.0, ((entry.at or runner.now()) - start).total_seconds())
                found[message_id] = Outcome(part, message_id, entry, seconds)
        if over or len(found) == len(waiting):
            return [found.get(one, Outcome(part, one)) for one, (part, _) in waiting.items()]
        time.sleep(_LOOKS)


def queue_of(part: Part) -> str:
    """Give the queue on which the consumer's messages wait."""
    return DELIVER_QUEUE.format(part.step.queue)


def _settled(runner: Runner, part: Part, message_id: str, deadline: datetime, *, over: bool) -> Entry | None:
    """Give how things stand, once that is not going to change in time."""
    place = part.spec.name, part.step.label
    if message_id not in runner.store.records(*place, [message_id]):
        return None
    told = explain(runner.store, [part.spec], message_id, runner.now())
    entry = next((one for one in told.entries if one.step == part.step.label), None) if told else None
    if entry is None or entry.state is not State.WAITING or over:
        return entry
    return entry if entry.due is not None and entry.due > deadline else None
