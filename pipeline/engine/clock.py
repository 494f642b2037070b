"""The clock: brings held messages back when they are due, has polling producers asked, and forgets old records."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
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
from pipeline.engine.windows import open_windows
from pipeline.errors import TemporaryError
from pipeline.message import Message, new_id
from pipeline.store import Claim, Why
from pipeline.store.rows import WINDOWS, Turn
from pipeline.telemetry import DEAD, HELD

log = structlog.get_logger()

TICK: Final = 0.25
"""Seconds between two looks at what is due."""
LEASE: Final = timedelta(seconds=10)
"""How long what a clock has claimed is its own; another clock takes it over when this one died."""
RENEWED: Final = 2.0
"""Seconds after which a clock that still works on what it has claimed renews its lease."""
RENEWED_FOR: Final = timedelta(minutes=10)
"""For how long it does: a filter that never comes back keeps its window from other clocks no longer."""
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
TOGETHER: Final = 500
"""Messages, and what is kept, of windows of one filter that are opened in one go; a larger window stands alone."""

Place = tuple[str, ...]
"""What messages share that travel back together."""


class Clock:
    """What happens without anybody sending anything. Any number of clocks may run at once: what is due is claimed by one."""

    def __init__(self, runner: Runner, *, owner: str, retention: timedelta, most_records: int = 10_000_000) -> None:
        self._runner = runner
        self._store = runner.store
        self._owner = f"{owner}/{new_id()}"  # two hosts or containers may call themselves the same
        self._retention = retention
        self._most_records = most_records
        self._polls = Polls(runner, self._owner)
        self._failed: dict[Place, int] = {}
        """What could not be brought back, with a number that is higher for what failed later."""
        self._failures = 0
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
        """Bring back place after place while the lease surely holds; what was not come to may be another clock's.

        Those that failed before come last, the last failure at the end, and hinder no other; before them a large window, which
        takes its time.
        """
        if not claims:
            return
        bundles = self._bundled(claims)
        with self._leased(claims):
            try:
                while bundles and self._runner.now() < end:
                    places = [_place(window[0]) for window in bundles[-1]]
                    self._failures += 1
                    self._failed |= dict.fromkeys(places, self._failures)
                    self._bring_back(bundles[-1])
                    bundles.pop()
                    for place in places:
                        del self._failed[place]
            finally:
                if bundles:
                    self._store.give_back([claim for bundle in bundles for window in bundle for claim in window])

    def _bundled(self, claims: Sequence[Claim]) -> list[list[list[Claim]]]:
        """Sort claims by place, and put small windows of one filter together; the last bundle is to be the first."""
        places = [list(group) for _, group in groupby(sorted(claims, key=_place), key=_place)]
        due = {_place(place[0]) for place in places}
        self._failed = {
            place: number for place, number in self._failed.items() if place in due
        }  # the others are another clock's now
        bundles: list[list[list[Claim]]] = []
        step, size = None, 0
        for place in places:
            alone = place[0].held.why not in WINDOWS or _place(place[0]) in self._failed
            here = None if alone else _place(place[0])[:2]
            size += len(place)
            if here is None or here != step or size > TOGETHER:
                bundles.append([])
                step, size = here, len(place)
            bundles[-1].append(place)
        bundles.sort(key=lambda bundle: (self._failed.get(_place(bundle[0][0]), 0), sum(map(len, bundle))), reverse=True)
        return bundles

    @contextmanager
    def _leased(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Keep other clocks off while this one is at work, however long a window takes."""
        done, end = threading.Event(), self._runner.now() + RENEWED_FOR

        def renew() -> None:
            while not done.wait(RENEWED) and (now := self._runner.now()) < end:
                try:
                    self._store.renew(claims, now + LEASE)
                except TemporaryError as away:  # nobody else can claim them either
                    log.warning("the lease on what is due could not be renewed", error=str(away))

        renewing = threading.Thread(target=renew, name="lease", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()

    def _bring_back(self, bundle: Sequence[Sequence[Claim]]) -> None:
        """Put claimed messages of one place, or windows of one filter, back on the queue, then let go of those."""
        claims = [claim for window in bundle for claim in window]
        held = claims[0].held
        messages = [claim.held.message for claim in claims]
        try:
            pipeline = self._runner.pipelines[held.pipeline]
            if held.why in WINDOWS:
                self._open(pipeline, bundle)
                return
            claims = list(self._requeue(pipeline, claims, messages))
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

    def _open(self, pipeline: Pipeline, windows: Sequence[Sequence[Claim]]) -> None:
        """Open windows of one filter: put what leaves them on the queue, then hold what stays in place of the claims."""
        step = windows[0][0].held.step
        openings = open_windows(pipeline, windows, self._store, self._runner.memory, self._runner.now())
        batches: list[Batch] = []
        for revision, same in groupby(sorted(openings, key=attrgetter("revision")), key=attrgetter("revision")):
            left = [message for opening in same for message in opening.left]
            batches += self._process(pipeline, step, left, revision)
        if batches:
            self._runner.publish(batches)
        turns = [Turn(claims, opening.again) for claims, opening in zip(windows, openings, strict=True)]
        for lost in self._store.turn(turns):
            words = {"pipeline": pipeline.spec.name, "step": step, "key": lost.claims[0].held.key}
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


def _place(claim: Claim) -> Place:
    """Give what messages must share to travel back in one batch; those of a window are opened together, however they came."""
    held = claim.held
    if held.why in WINDOWS:
        return (held.pipeline, held.step, Why.WINDOW.value, held.key, "", "")
    return (held.pipeline, held.step, held.why.value, held.key, str(held.attempt), held.revision)
