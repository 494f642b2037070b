"""The intake's publisher: collects what waits while the last publish is under way, and spools while the broker is away."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

import structlog

from pipeline.engine.batch import Queue
from pipeline.engine.decisions import Now, utc_now
from pipeline.engine.handed import Group, Handed, apart, batches, count, messages_of, settle
from pipeline.engine.lanes import in_line
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.routes import FEW, incoming
from pipeline.engine.written import Written
from pipeline.errors import TemporaryError
from pipeline.store import Store
from pipeline.store.rows import Held, Why
from pipeline.telemetry import ACCEPTED, PUBLISH_SECONDS, SPOOLED

log = structlog.get_logger()

MAX_WAITING: Final = 20_000
"""Messages that may wait for the publisher; beyond, requests are refused at once instead of piling up in memory."""
PAUSE: Final = 1.0
"""Seconds after a failed publish during which messages go straight to the spool."""

CROWD: Final = 16
"""Requests that went out together: from so many on, those behind them are given time to gather."""
GAP: Final = 0.003
"""Seconds between the beginnings of two publishes while a crowd comes: each costs about a millisecond, however much it takes."""
LONGEST: Final = 0.02
"""Seconds for which a crowd gathers, at most."""
FULL: Final = 1000
"""Messages that are worth a publish of their own, even beside another: who has so many has nothing to gain from waiting."""
AT_ONCE: Final = 2
"""Publishes under way at the same time, at most."""
LOOKS: Final = 10
"""Looks for a late publish within the time that one may take."""
LOOK: Final = 0.01, 0.5
"""Seconds between two of them, at least and at most."""


@dataclass(slots=True, eq=False)
class _Publish:
    """What a thread has taken to publish it."""

    taken: Sequence[Handed]
    asked: Sequence[Group] = ()
    """What of it the broker is asked to take just now."""
    since: float = 0.0
    """When that began."""


class _LateError(Exception):
    """The broker has answered, but so late that what it was given goes to the spool, and another thread is to publish."""


class Publisher:
    """What publishes for all requests of a process, in threads of its own.

    Whatever was handed in while a publish was under way goes out with the next one, one batch per pipeline. Behind a
    single request there is no delay; behind several of few messages, the next ones are given as long as their publish took to
    gather, behind a crowd twice as long, or until as many are there again. Messages that are enough for a publish of their own do
    not wait for another's end. A broker that does not answer within `timeout` seconds, and a tenth of it, is left to itself until
    it does: what it was given goes to the spool as well, and may come twice.
    """

    def __init__(self, queue: Queue, store: Store, *, timeout: float = 5.0, now: Now = utc_now) -> None:
        self._queue = queue
        self._timeout = timeout
        self._store = store
        self._now = now
        self._waiting: list[Handed] = []
        self._count = 0
        """How many messages wait."""
        self._expected = 0
        """How many requests end the gathering; 0 where only time does."""
        self._under_way: set[_Publish] = set()
        self._late: set[_Publish] = set()
        """What the broker has not confirmed in time."""
        self._overdue: list[Sequence[Group]] = []
        """What is to be spooled for that."""
        self._away_until = 0.0
        self._wake = threading.Condition()
        self._closing = False
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._missing = AT_ONCE
        """How many threads are to be started."""
        self._start()
        self._watcher = threading.Thread(target=self._watch, name="publisher's watch", daemon=True)
        self._watcher.start()

    @property
    def largest(self) -> int:
        """Bytes as JSON of the largest message that may be handed in."""
        return self._queue.largest

    def submit(self, pipeline: Pipeline, producer: str, written: Sequence[Written]) -> asyncio.Future[None]:
        """Hand messages in, one at least, as they were written; called on an event loop, it does not wait.

        The future is done when they are accepted: on the queue, or fsynced in the spool. It fails with `TemporaryError` when
        neither could be had, or when too many messages wait already. Whoever awaits it may give up: they may be accepted still.
        """
        accepted = asyncio.get_running_loop().create_future()
        number = sum(piece.number for piece in written)
        with self._wake:
            if self._closing:
                accepted.set_exception(TemporaryError("this server is stopping", retry_after=5))
            elif self._count + number > MAX_WAITING:
                accepted.set_exception(TemporaryError("more messages arrive than the broker takes", retry_after=1))
            else:
                self._waiting.append(Handed(pipeline, producer, written, number, accepted))
                self._count += number
                if self._count >= FULL or len(self._waiting) == self._expected:
                    self._wake.notify_all()  # one of them may be gathering
                elif self._is_time():
                    self._wake.notify()
        return accepted

    def close(self) -> None:
        """Publish what was handed in, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._join()
        self._closed.set()
        self._watcher.join()
        self._join()

    def _join(self) -> None:
        while self._threads:
            self._threads.pop().join()

    def _start(self) -> None:
        """Start the threads that are missing; where the system has none left, that is tried again."""
        while self._reserved():
            thread = threading.Thread(target=self._run, name="publisher", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                with self._wake:
                    self._missing += 1
                log.warning("one thread less publishes", error=str(error))
                return
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]

    def _reserved(self) -> bool:
        """Say whether a thread is missing, which is then no longer the case."""
        with self._wake:
            missing = self._missing > 0
            self._missing -= missing
            return missing

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except _LateError:
                if not self._reserved():
                    return

    def _next(self) -> Callable[[], None] | None:
        """Wait for something to do, and give it; None means that it is time to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._closing or self._overdue or self._is_time())
            if self._overdue:
                return partial(self._accept, self._overdue.pop(0), self._spool)
            if not self._waiting:
                return None
            publish = _Publish(self._waiting)
            self._waiting, self._count = [], 0
            self._under_way.add(publish)
            return partial(self._work, publish)

    def _work(self, publish: _Publish) -> None:
        began = monotonic()
        try:
            for groups in apart(publish.taken):
                self._accept(groups, partial(self._publish, publish))
            self._gather(_pause(publish.taken, monotonic() - began), len(publish.taken))
        finally:
            with self._wake:
                self._under_way.discard(publish)

    def _gather(self, pause: float, requests: int) -> None:
        """Give the next requests time to gather; behind a crowd no longer than until it is complete."""
        if not pause:
            return
        with self._wake:
            self._expected = requests if requests >= CROWD else 0
            self._wake.wait_for(lambda: self._closing or 0 < self._expected <= len(self._waiting), pause)
            self._expected = 0

    def _is_time(self) -> bool:
        """Say whether what waits is to be published now, beside what is under way."""
        return self._count >= (FULL if self._under_way else 1)

    def _watch(self) -> None:
        """Look for what the broker does not confirm in time: it is spooled, and others publish in place of who waits for it."""
        shortest, longest = LOOK
        while not self._closed.wait(min(max(self._timeout / LOOKS, shortest), longest)):
            with self._wake:
                end = monotonic() - self._timeout
                late = [one for one in self._under_way if one.asked and one.since <= end]
                self._under_way.difference_update(late)
                self._late.update(late)
                self._overdue += [one.asked for one in late]
                self._missing += len(late)
                self._wake.notify(len(late))
            for _ in late:
                log.warning("the broker does not answer, messages go to the spool", waited=f"{self._timeout:g} s")
            self._start()

    def _accept(self, groups: Sequence[Group], take: Callable[[Sequence[Group]], None]) -> None:
        handed = [one for group in groups for one in group]
        try:
            take(groups)
        except _LateError:
            raise
        except Exception as error:
            log.exception("messages refused")
            settle(handed, error)
            return
        accepted: Counter[tuple[str, str]] = Counter()
        for one in handed:
            accepted[one.pipeline.spec.name, one.producer] += one.number
        for (pipeline, producer), number in accepted.items():
            ACCEPTED.labels(pipeline, producer).inc(number)
        settle(handed, None)

    def _publish(self, publish: _Publish, groups: Sequence[Group]) -> None:
        if groups[0][0].pipeline.spec.ordered:
            self._line_up(groups)
        elif not self._queued(publish, groups):
            self._spool(groups)

    def _queued(self, publish: _Publish, groups: Sequence[Group]) -> bool:
        """Say whether the broker has confirmed what it was given; raises `_LateError` where nobody waits for that any more."""
        if self._late or monotonic() < self._away_until:
            return False
        to_send = [batch for group in groups for batch in batches(group)]
        with self._wake:
            publish.asked, publish.since = groups, monotonic()
        try:
            with PUBLISH_SECONDS.time():
                self._queue.publish(to_send)
        except TemporaryError as away:
            self._away_until = monotonic() + PAUSE
            log.warning("the broker is away, messages go to the spool", error=str(away))
            return False
        finally:
            self._answered(publish)
        return True

    def _answered(self, publish: _Publish) -> None:
        with self._wake:
            publish.asked = ()
            if publish in self._late:
                self._late.remove(publish)
                raise _LateError

    def _line_up(self, groups: Sequence[Group]) -> None:
        """Let messages stand in line for their pipelines' first filters; clocks bring them on from there."""
        now = self._now()
        batches = [batch for group in groups for batch in incoming(group[0].pipeline, messages_of(group))]
        self._store.settle(lined=[one for batch in batches for one in in_line(batch, now)])

    def _spool(self, groups: Sequence[Group]) -> None:
        now = self._now()
        held = [
            Held(
                message=message,
                pipeline=group[0].pipeline.spec.name,
                step="",
                why=Why.SPOOL,
                due=now,
                revision=group[0].pipeline.spec.revision,
            )
            for group in groups
            for message in messages_of(group)
        ]
        self._store.settle(held=held)
        SPOOLED.inc(len(held))


def _pause(taken: Sequence[Handed], took: float) -> float:
    """Give the seconds in which the next requests may gather, behind a publish of these that took so long."""
    if len(taken) == 1 or count(taken) >= FULL:
        return 0.0
    if len(taken) >= CROWD:
        return min(max(GAP - took, 2 * took), LONGEST)
    return min(took, GAP) if count(taken) <= FEW else 0.0
