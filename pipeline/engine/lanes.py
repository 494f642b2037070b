"""The lanes of ordered consumers: what goes into them, and how their first messages get onto the queue.

A message for an ordered consumer stands in line in the store, once before the pipeline's filters and once before the consumer.
Only the first messages of a lane are on the queue at a time, so that nothing can overtake there.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Literal

import structlog

from pipeline.engine.batch import DELIVER_QUEUE, MAX_BYTES, MAX_DELIVER, PROCESS_QUEUE, Batch, Queue, too_large
from pipeline.engine.decisions import Decisions, Now
from pipeline.engine.pipeline import Pipelines, UnknownStepError, comes_next
from pipeline.engine.shift import Shift
from pipeline.errors import TemporaryError
from pipeline.message import new_id
from pipeline.store import Store
from pipeline.store.rows import LaneClaim, Lined

log = structlog.get_logger()

UNSENT: Final = timedelta(seconds=10)
"""When a clock dies with lanes it has claimed, they stand still for no longer than this."""
SENT: Final = timedelta(minutes=15)
"""A batch that did not reach a worker in this time is put on the queue anew; the worker that gets both works on one."""
BY_CLOCK: Final = 50
"""Batches that a clock puts on the queue in one go."""
BY_WORKER: Final = 2
"""Batches that a worker puts on the queue when it has finished one, so that a long lane does not wait for clocks."""


class Lanes:
    """The lanes in the store, and the way from there to the queue. Raises `TemporaryError` where one of both is away."""

    def __init__(self, pipelines: Pipelines, store: Store, queue: Queue, now: Now) -> None:
        self._pipelines = pipelines
        self._store = store
        self._queue = queue
        self._now = now

    def wanted(self, batch: Batch) -> bool:
        """Say whether the batch goes to an ordered consumer and has not stood in line for it."""
        pipeline = self._pipelines.get(batch.pipeline)
        if batch.claim or pipeline is None:
            return False
        if batch.job == "process":
            return pipeline.spec.ordered
        return any(step.ordered and step.label == batch.step for step in pipeline.spec.consumers)

    def apart(self, batches: Iterable[Batch]) -> tuple[list[Lined], list[Batch]]:
        """Give what is to stand in line, in order, and the batches that may go to the queue."""
        lined: list[Lined] = []
        others: list[Batch] = []
        for batch in batches:
            if self.wanted(batch):
                lined += in_line(batch, self._now())
            else:
                others.append(batch)
        return lined, others

    def line_up(self, batches: Iterable[Batch]) -> list[Batch]:
        """Let stand in line, durably, what must; give the batches that may go to the queue."""
        lined, others = self.apart(batches)
        if lined:
            self._store.settle(lined=lined)
        return others

    def go_on(self, most: int = BY_WORKER, *, take_over: bool = False) -> bool:
        """Put the first messages of lanes on the queue, up to `most` batches; true when there are more. Raises nothing.

        With `take_over` also those of workers whose lease has ended, which count as dead.
        """
        try:
            return self.advance(most, take_over=take_over)
        except TemporaryError as away:
            log.warning("what stands in line cannot go on", error=str(away))
            return False

    def advance(self, most: int, *, take_over: bool) -> bool:
        """Do what `go_on` does; raises `TemporaryError`."""
        for _ in range(most):
            claim = self._store.lanes.claim(
                new_id(), now=self._now(), lease=UNSENT, limit=MAX_DELIVER, size=MAX_BYTES, take_over=take_over
            )
            if claim is None:
                return False
            self._send(claim)
        return True

    def bury(self, batch: Batch, error: str) -> None:
        """Give up what of the batch stands first in its lanes."""
        with Shift(self._store, batch, self._now) as shift:
            decisions = Decisions(batch.pipeline, batch.revision, self._now())
            for lane in shift.lanes:
                for turn in lane:
                    for step in comes_next(self._pipelines.get(batch.pipeline), batch, turn.message):
                        decisions.bury(turn.message, step, error, attempt=turn.row.attempt)
                    shift.done(turn)
            shift.settle(decisions, lambda decided: decided.settle(self._store))

    def _send(self, claim: LaneClaim) -> None:
        try:
            batch = self._batch(claim)
        except UnknownStepError as gone:
            self.bury(_batch(claim, "process", PROCESS_QUEUE), str(gone))
            return
        if error := too_large(batch, self._queue.largest):
            self.bury(batch, error)
            return
        try:
            self._queue.publish([batch])
        except Exception:
            self._store.lanes.give_back(claim.token, self._now())
            raise
        self._store.lanes.sent(claim.token, self._now() + SENT)

    def _batch(self, claim: LaneClaim) -> Batch:
        pipeline = self._pipelines[claim.pipeline]
        for step in pipeline.spec.consumers:
            if step.label == claim.step:
                return _batch(claim, "deliver", DELIVER_QUEUE.format(step.queue))
        behind = pipeline.filters_after(claim.step)
        return _batch(claim, "process", (behind[0].queue if behind else None) or PROCESS_QUEUE)


def in_line(batch: Batch, now: datetime) -> list[Lined]:
    """Give a batch's messages for the ends of their lanes."""
    return [
        Lined(message=message, pipeline=batch.pipeline, step=batch.step, due=now, attempt=batch.attempt, revision=batch.revision)
        for message in batch.messages
    ]


def _batch(claim: LaneClaim, job: Literal["process", "deliver"], queue: str) -> Batch:
    return Batch(
        job=job,
        queue=queue,
        pipeline=claim.pipeline,
        step=claim.step,
        messages=claim.messages,
        revision=claim.revision,
        claim=claim.token,
    )
