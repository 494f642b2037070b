"""The runner: takes one batch from the queue, and does with it what its pipeline says."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog

from pipeline.engine.attempts import Attempts
from pipeline.engine.batch import (
    MAX_PROCESS,
    Batch,
    Queue,
    decode,
    is_for_consumers,
    refuse_unreadable,
    split,
    too_large,
)
from pipeline.engine.circuit import Circuits
from pipeline.engine.decisions import Decisions, Now, bury_all, utc_now
from pipeline.engine.fate import Fates
from pipeline.engine.filtering import FilterStage
from pipeline.engine.inorder import InOrder
from pipeline.engine.lanes import Lanes
from pipeline.engine.pipeline import Pipeline, Pipelines, UnknownStepError, comes_next
from pipeline.engine.results import StepResults
from pipeline.engine.retry import NotTriedError
from pipeline.engine.routes import first_batch, incoming, to_consumers, to_filter
from pipeline.engine.together import Together
from pipeline.engine.underway import Underway
from pipeline.engine.written import write
from pipeline.errors import PermanentError, TemporaryError
from pipeline.memory import MemoryBackend
from pipeline.message import Message, foreign_id, new_id
from pipeline.plugin import PollingProducer, Unreadable
from pipeline.store import Store
from pipeline.store.rows import Outcome, Record, Why
from pipeline.telemetry import ACCEPTED, DELIVERY_SECONDS, FILTER_SECONDS

log = structlog.get_logger()

DEATHS_BEFORE_SPLIT: Final = 2
"""A batch over which this many workers died is halved, until the message that kills them stands alone."""
DEATHS_BEFORE_BURIAL: Final = 3
RECORD_LIMIT: Final = 120.0
"""Seconds for which a worker tries to record what a consumer has taken; the batch that goes back after that is taken twice."""
RECORD_PAUSE: Final = 1.0
"""Seconds between two tries."""


class Runner:
    """What a worker does with a batch, and what a clock does with a polling producer.

    Every method raises only when nothing may be acknowledged (the store or the queue is away); the batch is then to be
    put back and run again. Plugin errors never leave it.
    """

    def __init__(self, pipelines: Pipelines, store: Store, memory: MemoryBackend, queue: Queue, *, now: Now = utc_now) -> None:
        self.pipelines = pipelines
        self.store = store
        self.memory = memory
        self.queue = queue
        self.now = now
        self.underway = Underway()
        self._together = Together()
        self.circuits = Circuits(store, now)
        self.attempts = Attempts(self.circuits, memory, now, lambda name, label: StepResults(store, name, label, now))
        self.fates = Fates(store, now)
        self.lanes = Lanes(pipelines, store, queue, now)
        self._in_order = InOrder(store, self.lanes, self.circuits, self.attempts)

    def read(self, text: bytes) -> Batch | None:
        """Read a batch as it came from the queue; what is none is buried as the text it is."""
        try:
            return decode(text)
        except ValueError as error:
            unreadable = Message(source="queue", type="unreadable", data=text.decode(errors="replace"))
            bury_all(self.store, "", "", "", [unreadable], f"not a batch: {error}", self.now())
            return None

    def run_text(self, text: bytes) -> None:
        """Read a batch and run it."""
        if (batch := self.read(text)) is not None:
            self.run(batch)

    def run(self, batch: Batch) -> None:
        """Filter or deliver the batch, as it says; one whose pipeline or step is gone is buried."""
        try:
            pipeline = self.pipelines[batch.pipeline]
            if self.lanes.wanted(batch):
                self.lanes.line_up([batch])
                self.lanes.go_on()
            elif batch.claim and batch.job == "process":
                self._in_order.process(pipeline, batch, filtered=partial(self._filtered, pipeline), publish=self.publish)
            elif batch.claim:
                self._in_order.deliver(pipeline, batch, write=self._settle_surely)
            elif batch.job == "process" and is_for_consumers(batch.queue):
                self._process_there(pipeline, batch)
            elif batch.job == "process":
                self.process(pipeline, batch)
            elif pipeline.consumer(batch.step).batches:
                self._together.work(batch, partial(self._alone, pipeline))
            else:
                self._alone(pipeline, batch)
        except UnknownStepError as gone:
            self._bury(batch, str(gone))

    def process(self, pipeline: Pipeline, batch: Batch) -> None:
        """Run the batch through the filters and queue what is left, once per consumer."""
        decisions = Decisions(batch.pipeline, batch.revision, self.now(), pipeline.mask)
        onward = self._filtered(pipeline, decisions, batch)
        decisions.settle(self.store)
        if onward:
            self.publish(onward)

    def _process_there(self, pipeline: Pipeline, batch: Batch) -> None:
        """Filter a few messages and deliver them; where that cannot be done here, the processes of filters have them."""
        decisions = Decisions(batch.pipeline, batch.revision, self.now(), pipeline.mask)
        try:
            onward = self._filtered(pipeline, decisions, batch) if pipeline.filters_there else None
        except Exception:
            raise
        except BaseException as error:  # noqa: BLE001 - it would end a process, and is then dealt with there
            log.warning("a filter that says it is light would have ended its process", pipeline=batch.pipeline, error=repr(error))
            onward = None
        if onward is None:
            first = first_batch(pipeline, batch.messages)
            self.publish([first.replace(deaths=batch.deaths, revision=batch.revision)])
            return
        decisions.settle(self.store)
        for delivery in onward:
            self.run(delivery)

    def deliver(self, pipeline: Pipeline, batch: Batch) -> None:
        """Give the batch to its consumer; messages that the record says are done at this attempt are left out."""
        step = pipeline.consumer(batch.step)
        known = self.store.records(batch.pipeline, step.label, [message.id for message in batch.messages])
        by_id = {message.id: message for message in batch.messages}  # one that stands there twice is delivered once
        messages = [m for m in by_id.values() if m.id not in known or not _done(known[m.id], batch.attempt)]
        if not messages:
            return
        messages.sort(key=lambda message: message.id not in known)  # those that waited before come first
        with DELIVERY_SECONDS.labels(batch.pipeline, step.label).time():
            outcomes = self.attempts.make(pipeline, step, messages, again=sum(message.id in known for message in messages))
        decisions = Decisions(batch.pipeline, batch.revision, self.now(), pipeline.mask)
        if pipeline.spec.keep is not None and batch.attempt == 1 and pipeline.straight is step:
            decisions.keep(messages)
        for message in messages:
            error = outcomes[message.id]
            since = known[message.id].since if message.id in known else None
            if error is None:
                decisions.record(message, step.label, Outcome.DELIVERED, attempt=batch.attempt, since=since)
                continue
            decisions.fail(message, step.label, error, why=Why.RETRY, retry=step.retry, attempt=batch.attempt, since=since)
        self._settle_surely(decisions)
        if any(isinstance(error, NotTriedError) and error.key for error in outcomes.values()):
            self.circuits.recall_if_closed(batch.pipeline, step.label)

    def accept(self, pipeline: Pipeline, producer: str, messages: Sequence[Message]) -> None:
        """Put a producer's messages on the queue; when this returns they are accepted.

        Raises `PermanentError` where one of them could not be read again; then none is accepted.
        """
        for message in messages:
            refuse_unreadable(message)
        self.publish(incoming(pipeline, messages))
        ACCEPTED.labels(pipeline.spec.name, producer).inc(len(messages))

    def bury_raw(self, pipeline: Pipeline, producer: str, raw: bytes, reason: str, *, message_id: str = "") -> None:
        """Bury what a producer was given and cannot read, whole, where its messages would begin."""
        try:
            data: Any = raw.decode()
        except UnicodeDecodeError:
            data = {"base64": base64.b64encode(raw).decode()}
        unreadable = Message(id=message_id or new_id(), source=producer, type="unreadable", data=data)
        decisions = Decisions(pipeline.spec.name, pipeline.spec.revision, self.now(), pipeline.mask)
        decisions.bury(unreadable, "", f"{producer} cannot read this: {reason}")
        decisions.settle(self.store)

    def poll(self, pipeline: Pipeline, label: str) -> int:
        """Ask a polling producer once, and give the number of messages it had; the cursor moves behind each accepted batch."""
        step = pipeline.producer(label)
        producer = pipeline.plugin(step) if step else None
        if step is None or step.listens or not isinstance(producer, PollingProducer):
            raise PermanentError(f"pipeline '{pipeline.spec.name}' has no polling producer '{label}'")
        name, count = pipeline.spec.name, 0
        producer.notes = partial(self.store.notes, name, label)
        producer.drop_notes = partial(self.store.drop_notes, name, label)
        waiting: list[Message] = []
        cursor = self.store.cursor(name, label)
        reached = cursor
        told, failure = iter(producer.poll(cursor)), None
        while True:
            try:
                message, position = next(told)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised again, after what it gave before was accepted
                failure = error
                break
            cursor = position
            if isinstance(message, Unreadable):
                same = foreign_id(None, name, label, message.raw)
                self.bury_raw(pipeline, label, message.raw, message.reason, message_id=same)
            elif message is not None:
                waiting.append(message)
                count += 1
            if len(waiting) == MAX_PROCESS:
                self._advance(pipeline, label, waiting, cursor)
                waiting, reached = [], cursor
        if cursor is not None and (waiting or cursor != reached):
            self._advance(pipeline, label, waiting, cursor)
        if failure is not None:
            raise failure
        return count

    def lost(self, batch: Batch) -> None:
        """Deal with a batch over which a worker died: again, then in halves, and a message that stands alone is buried."""
        if batch.claim:
            self.store.lanes.died(batch.claim, self.now())
            self.lanes.go_on()
            return
        deaths = batch.deaths + 1
        if len(batch.messages) == 1 and deaths >= DEATHS_BEFORE_BURIAL:
            error = f"its worker died {deaths} times while it was working on this message"
            self._bury(batch, error)
            return
        parts = list(split(batch.messages, MAX_PROCESS))  # what ran as one may have been several full ones
        if deaths >= DEATHS_BEFORE_SPLIT and len(batch.messages) > 1:
            middle = len(batch.messages) // 2
            parts, deaths = [batch.messages[:middle], batch.messages[middle:]], DEATHS_BEFORE_SPLIT - 1
        self.publish([batch.replace(messages=part, deaths=deaths) for part in parts])

    def publish(self, batches: Sequence[Batch]) -> None:
        """Put batches on the queue. A message that is larger than the queue takes is buried: no later try would fare better."""
        fitting = []
        for batch in self.lanes.line_up(batches):
            if error := too_large(batch, self.queue.largest):
                self._bury(batch, error)
            else:
                fitting.append(batch)
        if fitting:
            self.queue.publish(fitting)

    def _filtered(self, pipeline: Pipeline, decisions: Decisions, batch: Batch) -> list[Batch]:
        """Run a batch through the filters, and give where what is left goes on."""
        if pipeline.spec.keep is not None and not batch.step:
            decisions.keep(batch.messages)
        stage = FilterStage(
            pipeline,
            decisions,
            remember=lambda step, message: self.memory.scoped(batch.pipeline, step.label, message.id),
            recall=lambda step, ids: self.store.records(batch.pipeline, step, ids),
            lost=partial(self.fates.lost, pipeline),
            attempt=batch.attempt,
            whole=bool(batch.claim),
        )
        with FILTER_SECONDS.labels(batch.pipeline).time():
            left, hop = stage.run(batch.messages, batch.step)
            goes_on = not (hop or batch.claim or pipeline.spec.ordered or is_for_consumers(batch.queue))
            written = write(left, self.queue.largest) if goes_on else None
            if written is None:
                left = stage.proven(left)
        return to_filter(pipeline, hop, left, batch) if hop else to_consumers(pipeline, left, written, batch, decisions)

    def _alone(self, pipeline: Pipeline, batch: Batch) -> None:
        with self.underway.alone((batch.pipeline, batch.step), [message.id for message in batch.messages]):
            self.deliver(pipeline, batch)

    def _bury(self, batch: Batch, error: str) -> None:
        if batch.claim:
            self.lanes.bury(batch, error)
            return
        decisions = Decisions(batch.pipeline, batch.revision, self.now())
        for message in batch.messages:
            for step in comes_next(self.pipelines.get(batch.pipeline), batch, message):
                decisions.bury(message, step, error, attempt=batch.attempt)
        decisions.settle(self.store)

    def _settle_surely(self, decisions: Decisions) -> None:
        """Write what was decided, waiting for a store that is away: the consumer must not get the messages again."""
        end = time.monotonic() + RECORD_LIMIT
        while True:
            try:
                decisions.settle(self.store)
            except TemporaryError as away:
                if time.monotonic() > end:
                    raise
                log.warning("what was delivered cannot be recorded yet", pipeline=decisions.pipeline, error=str(away))
                time.sleep(RECORD_PAUSE)
            else:
                return

    def _advance(self, pipeline: Pipeline, label: str, messages: Sequence[Message], cursor: str) -> None:
        if messages:
            self.accept(pipeline, label, messages)
        self.store.set_cursor(pipeline.spec.name, label, cursor)


def _done(record: Record, attempt: int) -> bool:
    """Say whether a delivery is on record: at this attempt, or a later one, or made at whatever attempt.

    Two workers that had the same batch at the same time may have decided differently. What the one delivered, the other's
    retry does not deliver again.
    """
    return record.outcome is Outcome.DELIVERED or record.attempt >= attempt
