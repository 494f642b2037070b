"""Work in order: what a worker does with a batch from lanes, each lane's messages one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from pipeline.engine.attempts import Attempts
from pipeline.engine.batch import MAX_DELIVER, Batch, split
from pipeline.engine.circuit import Circuits
from pipeline.engine.decisions import Decisions
from pipeline.engine.lanes import Lanes
from pipeline.engine.pipeline import Pipeline, comes_next
from pipeline.engine.retry import NotTriedError
from pipeline.engine.shift import Shift, Turn
from pipeline.errors import TemporaryError
from pipeline.spec.model import ConsumerStep
from pipeline.store import Outcome, Record, Store, Why
from pipeline.telemetry import DELIVERY_SECONDS

ROUNDS_LIMIT: Final = 120.0
"""Seconds after which no lane of a batch goes on to its next message; what is left goes on with the next batch."""

DEATHS_BEFORE_BURIAL: Final = 3

Filtered = Callable[[Decisions, Batch], list[Batch]]
"""Runs a batch through the filters, and gives where what is left goes on."""


def process(shift: Shift, batch: Batch, decisions: Decisions, filtered: Filtered) -> list[Batch]:
    """Run each lane's messages through the filters, one after the other, and give where what is left goes on.

    Where a filter fails for a while, its message is to pass all filters from the batch's first one on again; those behind it
    in its lane wait, and nothing of what was decided about it before counts.
    """
    onward: list[Batch] = []
    for lane in shift.lanes:
        for turn in lane:
            mine = Decisions(batch.pipeline, batch.revision, decisions.now, decisions.mask)
            its = filtered(mine, batch.replace(messages=[turn.message], attempt=turn.row.attempt))
            failed = [held for held in mine.held if held.why is Why.FILTER]
            if failed:
                shift.back(turn, due=max(held.due for held in failed), attempt=turn.row.attempt + 1)
                places = {(held.message.id, held.step) for held in failed}
                decisions.records += [record for record in mine.records if (record.message_id, record.step) in places]
                break
            shift.done(turn)
            decisions.add(mine)
            onward += its
    return onward


def merged(batches: Iterable[Batch]) -> list[Batch]:
    """Put batches for the same place together, as far as one may grow."""
    places: dict[tuple[str, str], list[Batch]] = {}
    for batch in batches:
        places.setdefault((batch.job, batch.step), []).append(batch)
    return [
        some[0].replace(messages=part)
        for some in places.values()
        for part in split([message for batch in some for message in batch.messages], MAX_DELIVER)
    ]


class Deliveries:
    """The deliveries of one shift to its consumer: in rounds, with one message of each lane in a round.

    A lane ends where a message is to be tried again. One that is buried lets the next ones pass.
    """

    def __init__(self, pipeline: Pipeline, step: ConsumerStep, attempts: Attempts, known: dict[str, Record]) -> None:
        self._pipeline = pipeline
        self._step = step
        self._attempts = attempts
        self._known = known
        self.parked = False
        """Whether some messages wait for a circuit."""

    def make(self, shift: Shift, decisions: Decisions) -> None:
        """Deliver as far as it goes; raises `TemporaryError` where it goes nowhere, as the store or the memory is away."""
        end = monotonic() + ROUNDS_LIMIT
        lanes = [self._left(shift, lane) for lane in shift.lanes]
        first = True
        while (lanes := [lane for lane in lanes if lane]) and (first or (monotonic() < end and shift.sure())):
            decisions.now = self._attempts.now()
            heads = sorted(lanes, key=lambda lane: lane[0].message.id not in self._known)  # those that waited come first
            again = sum(lane[0].message.id in self._known for lane in heads)
            try:
                with DELIVERY_SECONDS.labels(self._pipeline.spec.name, self._step.label).time():
                    outcomes = self._attempts.make(self._pipeline, self._step, [lane[0].message for lane in heads], again=again)
            except TemporaryError:
                if first:
                    raise
                return
            first = False
            for lane in lanes:
                self._decide(shift, decisions, lane, outcomes[lane[0].message.id])

    def _left(self, shift: Shift, lane: list[Turn]) -> list[Turn]:
        """Give what is still to be delivered of a lane; the rest leaves it."""
        left = []
        for turn in lane:
            if _through(self._known.get(turn.message.id), turn.row.attempt):
                shift.done(turn)
            else:
                left.append(turn)
        return left

    def _decide(self, shift: Shift, decisions: Decisions, lane: list[Turn], error: Exception | None) -> None:
        """Note what became of a lane's first message, and what it means for the others."""
        turn, label = lane.pop(0), self._step.label
        attempt = turn.row.attempt
        record = self._known.get(turn.message.id)
        since = record.since if record else None
        if error is None:
            decisions.record(turn.message, label, Outcome.DELIVERED, attempt=attempt, since=since)
            shift.done(turn)
            return
        self.parked |= isinstance(error, NotTriedError) and bool(error.key)
        before = len(decisions.held)
        decisions.fail(turn.message, label, error, why=Why.RETRY, retry=self._step.retry, attempt=attempt, since=since)
        if len(decisions.held) == before:
            shift.done(turn)
            return
        held = decisions.held.pop()
        shift.back(turn, due=held.due, attempt=held.attempt, parked=bool(held.key))
        lane.clear()


class InOrder:
    """Works on batches from lanes; raises `TemporaryError` where the store or the queue is away, and nothing is settled."""

    def __init__(self, store: Store, lanes: Lanes, circuits: Circuits, attempts: Attempts) -> None:
        self._store = store
        self._lanes = lanes
        self._circuits = circuits
        self._attempts = attempts

    def process(self, pipeline: Pipeline, batch: Batch, *, filtered: Filtered, publish: Callable[[list[Batch]], None]) -> None:
        """Filter what stands first in its lanes, and let it stand in line for the ordered consumers.

        What goes to others is published before that is settled: a kill between them has it filtered and published again.
        """
        with Shift(self._store, batch, self._attempts.now) as shift:
            if not shift.lanes:
                return
            decisions = Decisions(batch.pipeline, batch.revision, self._attempts.now(), pipeline.mask)
            if not _poison(pipeline, shift, batch, decisions):
                onward = process(shift, batch, decisions, filtered)
                decisions.lined, others = self._lanes.apart(onward)
                if others:
                    publish(merged(others))
            shift.settle(decisions, lambda decided: decided.settle(self._store), strict=True)
        self._lanes.go_on()

    def deliver(self, pipeline: Pipeline, batch: Batch, *, write: Callable[[Decisions], None]) -> None:
        """Deliver what stands first in its lanes; `write` settles decisions, and waits for a store that is away."""
        step = pipeline.consumer(batch.step)
        with Shift(self._store, batch, self._attempts.now) as shift:
            if not shift.lanes:
                return
            known = self._store.records(batch.pipeline, step.label, [message.id for message in shift.messages])
            deliveries = Deliveries(pipeline, step, self._attempts, known)
            decisions = Decisions(batch.pipeline, batch.revision, self._attempts.now(), pipeline.mask)
            if not _poison(pipeline, shift, batch, decisions):
                deliveries.make(shift, decisions)
            shift.settle(decisions, write)
        if deliveries.parked:
            self._circuits.recall_if_closed(batch.pipeline, step.label)
        self._lanes.go_on()


def _through(record: Record | None, attempt: int) -> bool:
    """Say whether a message is through with its consumer. One that is on record as held is not: what waits is its row here.

    Such a record may be of this attempt: a worker that had lost its lanes could say that it failed, and not when to go on.
    """
    if record is None or record.outcome is Outcome.HELD:
        return False
    return record.outcome is Outcome.DELIVERED or record.attempt >= attempt


def _poison(pipeline: Pipeline, shift: Shift, batch: Batch, decisions: Decisions) -> bool:
    """Give up the message that stands alone in a batch and over which too many workers died."""
    if shift.deaths < DEATHS_BEFORE_BURIAL:
        return False
    error = f"its worker died {shift.deaths} times while it was working on this message"
    for lane in shift.lanes:
        for turn in lane:
            for step in comes_next(pipeline, batch, turn.message):
                decisions.bury(turn.message, step, error, attempt=turn.row.attempt)
            shift.done(turn)
    return True
