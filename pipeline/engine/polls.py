"""Asking polling producers: each occurrence of a schedule once, by one process, whatever happens to the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

import structlog

from pipeline.engine.pipeline import Pipeline
from pipeline.engine.runner import Runner
from pipeline.errors import TemporaryError
from pipeline.spec.model import ProducerStep, Schedule
from pipeline.store.schedules import AHEAD

log = structlog.get_logger()

LEASE: Final = timedelta(seconds=15)
"""How long a producer is one process's after it was last heard of; then another asks."""
RENEW_EVERY: Final = 4.0
"""Seconds between two renewals while a poll is under way, however long it takes."""
LONGEST_WAIT: Final = 3600.0
"""Seconds for which a producer is left alone at most, whatever the other side asked for."""


class Polls:
    """The polls of one clock: those that are due are started, each in a thread.

    A producer whose other side asked to wait (`TemporaryError.retry_after`) is asked by this clock when that is over.
    """

    def __init__(self, runner: Runner, owner: str) -> None:
        self._runner = runner
        self._owner = owner
        self._running: dict[tuple[str, str], Future[None]] = {}
        self._next: dict[tuple[str, str], datetime] = {}
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="poll")
        self._since = self._seen = runner.now()

    def start_due(self, now: datetime) -> None:
        """Start the polls that are due and that no other clock has; a missed time is made up for once."""
        if now < self._seen:  # the machine's clock was put back, and what was to come next may be far
            self._next.clear()
        self._seen = now
        for pipeline in self._runner.pipelines:
            for step in pipeline.spec.producers:
                if step.schedule is not None:
                    self._start(pipeline, step, step.schedule, now)

    def finish(self) -> None:
        """Wait for the polls that are under way; no other is begun."""
        self._pool.shutdown(wait=True)

    def wait(self, timeout: float) -> None:
        """Wait for what is under way now."""
        for poll in self._running.values():
            poll.result(timeout)

    def _start(self, pipeline: Pipeline, step: ProducerStep, schedule: Schedule, now: datetime) -> None:
        place = (pipeline.spec.name, step.label)
        running = self._running.get(place)
        if (running is not None and not running.done()) or now < self._next.get(place, now):
            return
        last = self._runner.store.last_occurrence(*place) or self._since
        if last > now + AHEAD:
            last = now - AHEAD
        occurrence = _latest(schedule, last, now)
        if occurrence is None:
            self._next[place] = schedule.after(now)
        elif self._runner.store.claim_occurrence(*place, occurrence, self._owner, LEASE, now=now):
            self._running[place] = self._pool.submit(self._poll, pipeline, step, occurrence)

    def _poll(self, pipeline: Pipeline, step: ProducerStep, occurrence: datetime) -> None:
        name = pipeline.spec.name
        try:
            count = poll_claimed(self._runner, pipeline, step.label, occurrence, self._owner)
            tell = log.info if count else log.debug  # some are asked every second
            tell("polled", pipeline=name, producer=step.label, messages=count)
        except BaseException as error:  # noqa: BLE001 - a plugin's sys.exit() too; the next occurrence asks again from the same cursor
            text = pipeline.mask(f"{type(error).__name__}: {error}")
            log.warning("poll failed", pipeline=name, producer=step.label, error=text)
            if isinstance(error, TemporaryError) and error.retry_after is not None:
                wait = min(max(0.0, error.retry_after), LONGEST_WAIT)
                self._next[name, step.label] = self._runner.now() + timedelta(seconds=wait)


def poll_claimed(runner: Runner, pipeline: Pipeline, label: str, occurrence: datetime, owner: str) -> int:
    """Ask a producer whose occurrence this owner has claimed, and give the number of messages it had.

    The claim is kept while the poll is under way, and ends with it.
    """
    place = (pipeline.spec.name, label)
    try:
        with kept(runner, place, owner):
            return runner.poll(pipeline, label)
    finally:
        try:
            runner.store.finish_occurrence(*place, occurrence, owner)
        except TemporaryError as error:  # it is polled again when the lease has ended
            log.warning("a poll could not be noted", pipeline=place[0], producer=label, error=str(error))


@contextmanager
def kept(runner: Runner, place: tuple[str, str], owner: str) -> Iterator[threading.Event]:
    """Renew a claim until the block ends; the event tells that it is another one's now."""
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_EVERY):
            try:
                if not runner.store.renew_occurrence(*place, owner, LEASE, now=runner.now()):
                    lost.set()
            except TemporaryError as away:  # nobody else can claim it either
                log.warning("a poll under way could not be noted", pipeline=place[0], producer=place[1], error=str(away))

    renewing = threading.Thread(target=renew, name=f"renew {'/'.join(place)}", daemon=True)
    renewing.start()
    try:
        yield lost
    finally:
        done.set()
        renewing.join()


def _latest(schedule: Schedule, last: datetime, now: datetime) -> datetime | None:
    """Give the schedule's latest occurrence after `last` up to `now`, or None; looks back no further than it must."""
    back = timedelta(minutes=1)
    while now - back > last and schedule.after(now - back) > now:
        back *= 2
    occurrence = schedule.after(max(last, now - back))
    if occurrence > now:
        return None
    while (later := schedule.after(occurrence)) <= now:
        occurrence = later
    return occurrence
