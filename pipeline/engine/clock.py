"""The clock: brings held messages back when they are due, has polling producers asked, and forgets old records."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

import structlog

from pipeline.engine.batch import MAX_PROCESS, PROCESS_QUEUE, Batch, split
from pipeline.engine.decisions import bury_all
from pipeline.engine.lanes import BY_CLOCK
from pipeline.engine.listeners import Listeners
from pipeline.engine.pipeline import Pipeline, UnknownStepError
from pipeline.engine.polls import Polls
from pipeline.engine.routes import delivery
from pipeline.engine.runner import Runner
from pipeline.engine.trouble import Trouble
from pipeline.engine.windows import open_window
from pipeline.errors import TemporaryError
from pipeline.message import Message, new_id
from pipeline.store import Claim, Why
from pipeline.store.rows import WINDOWS
from pipeline.telemetry import DEAD, HELD

log = structlog.get_logger()

TICK: Final = 0.25
"""Seconds between two looks at what is due."""
LEASE: Final = timedelta(seconds=10)
"""How long what a clock has claimed is its own; another clock takes it over when this one died."""
STEADY: Final = timedelta(seconds=10)
"""How long the store must have answered before a worker that has not renewed its lease on lanes is taken for dead: while the
store is away nobody can, and those that live do so in this time."""
PURGE_EVERY: Final = timedelta(minutes=1)
PURGE_AT_ONCE: Final = 10_000
RECORDS_STAY: Final = timedelta(hours=1)
"""How long records stay whatever their number: until then a batch may come again, and they say what of it was done. Four
times what a broker that cannot see a worker die waits before it gives a batch to another one."""
AT_ONCE: Final = 2000
"""Held messages claimed in one go."""


class Clock:
    """What happens without anybody sending anything. Any number of clocks may run at once: what is due is claimed by one."""

    def __init__(self, runner: Runner, *, owner: str, retention: timedelta, most_records: int = 10_000_000) -> None:
        self._runner = runner
        self._store = runner.store
        self._owner = f"{owner}/{new_id()}"  # two hosts or containers may call themselves the same
        self._retention = retention
        self._most_records = most_records
        self._polls = Polls(runner, self._owner)
        self._failed: set[tuple[str, ...]] = set()
        self._purged: datetime | None = None
        self._steady_from = runner.now() + STEADY

    def run(self, stopping: threading.Event) -> None:
        """Tick until `stopping` is set. Whatever goes wrong is logged, and tried again at the next tick."""
        listeners = Listeners(self._runner, stopping, owner=self._owner)
        listeners.start()
        trouble = Trouble()
        while not stopping.is_set():
            try:
                more = self.tick()
                trouble.over()
            except Exception as error:  # noqa: BLE001 - it is logged, a bug with its traceback, and the clock goes on
                trouble.failed(error)
                more = False
            stopping.wait(0 if more else TICK)
        listeners.join()
        self._polls.finish()

    def tick(self) -> bool:
        """Do what is due; true when more is known to be due."""
        try:
            return self._tick()
        except TemporaryError:
            self._steady_from = self._runner.now() + STEADY
            raise

    def _tick(self) -> bool:
        now = self._runner.now()
        self._runner.circuits.wake()
        claims = self._store.claim_due(now, owner=self._owner, lease=LEASE, limit=AT_ONCE)
        try:
            self._bring_all_back(claims, now + LEASE / 2)
        finally:
            more = self._runner.lanes.go_on(BY_CLOCK, take_over=now >= self._steady_from)
            self._polls.start_due(now)
            self._runner.circuits.show((p.spec.name, step.label) for p in self._runner.pipelines for step in p.spec.consumers)
            self._purge(now)
        return more or len(claims) >= AT_ONCE

    def _bring_all_back(self, claims: Sequence[Claim], end: datetime) -> None:
        """Bring back place after place while the lease surely holds; those that failed before come last and hinder no other."""
        places = [list(group) for _, group in groupby(sorted(claims, key=_place), key=_place)]
        places.sort(key=lambda place: _place(place[0]) in self._failed, reverse=True)
        try:
            while places and self._runner.now() < end:
                self._failed.add(_place(places[-1][0]))
                self._bring_back(places[-1])
                self._failed.discard(_place(places.pop()[0]))
        finally:
            if places:
                self._store.give_back([claim for place in places for claim in place])

    def _bring_back(self, claims: Sequence[Claim]) -> None:
        """Put claimed messages of one place back on the queue, then let go of those: what waits on keeps its row."""
        held = claims[0].held
        messages = [claim.held.message for claim in claims]
        try:
            pipeline = self._runner.pipelines[held.pipeline]
            if held.why in WINDOWS:
                self._open(pipeline, claims)
                return
            claims = self._requeue(pipeline, claims, messages)
        except UnknownStepError as gone:
            bury_all(
                self._store,
                held.pipeline,
                held.revision,
                held.step,
                messages,
                str(gone),
                self._runner.now(),
                attempt=held.attempt,
            )
        self._store.release(claims)

    def _open(self, pipeline: Pipeline, claims: Sequence[Claim]) -> None:
        """Open a window: put what leaves it on the queue, then hold what stays in place of the claims."""
        held = claims[-1].held
        opening = open_window(pipeline, claims, self._store, self._runner.memory, self._runner.now())
        if batches := self._process(pipeline, held.step, opening.left, held.revision):
            self._runner.publish(batches)
        if not self._store.turn(claims, opening.again):
            words = {"pipeline": held.pipeline, "step": held.step}
            log.warning("another clock has taken a window over, and opens it once more", **words)

    def _requeue(self, pipeline: Pipeline, claims: Sequence[Claim], messages: list[Message]) -> Sequence[Claim]:
        """Put messages back on the queue; give the claims of those that are there now."""
        held = claims[0].held
        if held.why is Why.RETRY:
            step = pipeline.consumer(held.step)
            claims = self._runner.circuits.let_through(held.pipeline, step, claims)
            messages = [claim.held.message for claim in claims]
            batches = delivery(held.pipeline, step, messages, revision=held.revision, attempt=held.attempt)
        else:
            after = pipeline.before(held.step) if held.step else ""
            batches = self._process(pipeline, after, messages, held.revision, attempt=held.attempt)
        if batches:
            self._runner.publish(batches)
        return claims

    def _process(
        self, pipeline: Pipeline, after: str, messages: Sequence[Message], revision: str, *, attempt: int = 1
    ) -> list[Batch]:
        behind = pipeline.filters_after(after)
        queue = (behind[0].queue if behind else None) or PROCESS_QUEUE
        name = pipeline.spec.name
        return [
            Batch(job="process", queue=queue, pipeline=name, step=after, messages=part, attempt=attempt, revision=revision)
            for part in split(messages, MAX_PROCESS)
        ]

    def _purge(self, now: datetime) -> None:
        if self._purged is None or now - self._purged >= PURGE_EVERY:
            purged = self._store.purge(self._purge_before(now), PURGE_AT_ONCE, tried_before=now - self._retention)
            purged = max(purged, self._purge_accepted(now))
            all_gone = purged < PURGE_AT_ONCE
            self._purged = now if all_gone else None
            self._runner.memory.purge()
            HELD.set(sum(self._store.held_counts().values()))
            DEAD.set(sum(self._store.count_dead().values()))

    def _purge_accepted(self, now: datetime) -> int:
        """Forget messages that are kept for no longer; those of a pipeline that is gone go with the records."""
        keeps = {
            pipeline.spec.name: (now - keep.lasting, keep.most) if (keep := pipeline.spec.keep) else (now, 0)
            for pipeline in self._runner.pipelines
        }
        return self._store.accepted.purge(keeps, now - self._retention, PURGE_AT_ONCE)

    def _purge_before(self, now: datetime) -> datetime:
        """Give the time before which records are forgotten: older than they are kept, or more than are kept."""
        oldest = self._store.oldest_within(self._most_records, now)
        before = now - self._retention
        return min(before if oldest is None else max(before, oldest), now - RECORDS_STAY)


def _place(claim: Claim) -> tuple[str, ...]:
    """Give what messages must share to travel back in one batch; those of a window are opened together, however they came."""
    held = claim.held
    if held.why in WINDOWS:
        return (held.pipeline, held.step, Why.WINDOW.value, held.key, "", "")
    return (held.pipeline, held.step, held.why.value, held.key, str(held.attempt), held.revision)
