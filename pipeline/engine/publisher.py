"""The intake's publisher: collects what waits while the last publish is under way, and spools while the broker is away."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final

import structlog

from pipeline.engine.batch import Batch, Queue
from pipeline.engine.decisions import Now, utc_now
from pipeline.engine.lanes import in_line
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.routes import FEW, FEW_BYTES, first_batch, incoming, most_at_first
from pipeline.engine.written import Written, divide
from pipeline.errors import TemporaryError
from pipeline.message import Message
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


@dataclass(slots=True)
class _Handed:
    pipeline: Pipeline
    producer: str
    messages: Sequence[Message]
    written: Sequence[Written]
    accepted: asyncio.Future[None]


_Group = list[_Handed]
"""What was handed in for one pipeline."""


@dataclass(slots=True, eq=False)
class _Asked:
    """What the broker was asked to take, and since when."""

    groups: Sequence[_Group]
    since: float


class _LateError(Exception):
    """The broker has answered, but so late that what it was given is in the spool, and this thread's place is taken."""


class Publisher:
    """What publishes for all requests of a process, in threads of its own.

    Whatever was handed in while a publish was under way goes out with the next one, one batch per pipeline. Behind a
    single request there is no delay; behind several of few messages, the next ones are given as long as their publish took to
    gather, behind a crowd twice as long, or until as many are there again. Messages that are enough for a publish of their own do
    not wait for another's end. A broker that does not answer within `timeout` seconds, and a tenth of it, is left to itself
    until it does: what it was given goes to the spool as well, and may come twice.
    """

    def __init__(self, queue: Queue, store: Store, *, timeout: float = 5.0, now: Now = utc_now) -> None:
        self._queue = queue
        self._timeout = timeout
        self._asked: set[_Asked] = set()
        self._late: set[_Asked] = set()
        self._store = store
        self._now = now
        self._waiting: list[_Handed] = []
        self._count = 0
        self._under_way = 0
        self._wake = threading.Condition()
        self._crowd = 0
        """How many requests are waited for."""
        self._closing = False
        self._closed = threading.Event()
        self._away_until = 0.0
        self._threads: list[threading.Thread] = []
        for _ in range(AT_ONCE):
            self._start()
        self._watcher = threading.Thread(target=self._watch, name="publisher's watch", daemon=True)
        self._watcher.start()

    @property
    def largest(self) -> int:
        """Bytes as JSON of the largest message that may be handed in."""
        return self._queue.largest

    def submit(
        self, pipeline: Pipeline, producer: str, messages: Sequence[Message], written: Sequence[Written]
    ) -> asyncio.Future[None]:
        """Hand messages in, one at least, and as they are written; called on an event loop, it does not wait.

        The future is done when they are accepted: on the queue, or fsynced in the spool. It fails with `TemporaryError` when
        neither could be had, or when too many messages wait already. Whoever awaits it may give up: they may be accepted still.
        """
        accepted = asyncio.get_running_loop().create_future()
        with self._wake:
            if self._closing:
                accepted.set_exception(TemporaryError("this server is stopping", retry_after=5))
            elif self._count + len(messages) > MAX_WAITING:
                accepted.set_exception(TemporaryError("more messages arrive than the broker takes", retry_after=1))
            else:
                self._waiting.append(_Handed(pipeline, producer, messages, written, accepted))
                self._count += len(messages)
                if self._is_time() or len(self._waiting) == self._crowd:
                    self._wake.notify(AT_ONCE if self._crowd else 1)
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
        thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        with suppress(_LateError):
            while taken := self._take():
                began = monotonic()
                for groups in _apart(taken):
                    self._accept(groups, self._publish)
                self._gather(taken, monotonic() - began)

    def _watch(self) -> None:
        """Spool what the broker does not confirm in time, and have others publish in place of the thread that waits for it."""
        while not self._closed.wait(self._timeout / LOOKS):
            with self._wake:
                late = {one for one in self._asked if monotonic() > one.since + self._timeout}
                self._asked -= late
                self._late |= late
                self._under_way -= len(late)
            for one in late:
                log.warning("the broker does not answer, messages go to the spool", waited=f"{self._timeout:g} s")
                self._start()
                self._accept(one.groups, self._spool)

    def _accept(self, groups: Sequence[_Group], take: Callable[[Sequence[_Group]], None]) -> None:
        handed = [one for group in groups for one in group]
        try:
            take(groups)
        except _LateError:
            raise
        except Exception as error:
            log.exception("messages refused")
            _settle(handed, error)
            return
        counts: Counter[tuple[str, str]] = Counter()
        for one in handed:
            counts[one.pipeline.spec.name, one.producer] += len(one.messages)
        for (pipeline, producer), count in counts.items():
            ACCEPTED.labels(pipeline, producer).inc(count)
        _settle(handed, None)

    def _take(self) -> list[_Handed]:
        """Wait for messages and take all there are; an empty list means that it is time to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._closing or self._is_time())
            handed, self._waiting = self._waiting, []
            self._count = 0
            self._under_way += bool(handed)
            return handed

    def _gather(self, taken: Sequence[_Handed], took: float) -> None:
        """Give the next requests time to gather, and let them go out."""
        with self._wake:
            if pause := _pause(taken, took):
                self._crowd = len(taken) if len(taken) >= CROWD else MAX_WAITING
                self._wake.wait_for(lambda: self._closing or len(self._waiting) >= self._crowd, pause)
                self._crowd = 0
            self._under_way -= 1

    def _is_time(self) -> bool:
        """Say whether what waits is to be published now, beside what is under way."""
        return self._count >= (FULL if self._under_way else 1)

    def _publish(self, groups: Sequence[_Group]) -> None:
        if groups[0][0].pipeline.spec.ordered:
            self._line_up(groups)
        elif not self._queued(groups):
            self._spool(groups)

    def _queued(self, groups: Sequence[_Group]) -> bool:
        """Say whether the broker has confirmed what it was given."""
        if self._late or monotonic() < self._away_until:
            return False
        batches = [batch for group in groups for batch in _batches(group)]
        asked = _Asked(groups, monotonic())
        with self._wake:
            self._asked.add(asked)
        try:
            with PUBLISH_SECONDS.time():
                self._queue.publish(batches)
        except TemporaryError as away:
            self._away_until = monotonic() + PAUSE
            log.warning("the broker is away, messages go to the spool", error=str(away))
            return False
        finally:
            self._answered(asked)
        return True

    def _answered(self, asked: _Asked) -> None:
        """Note that the broker has answered; raises `_LateError` where that was waited for no longer."""
        with self._wake:
            if asked in self._late:
                self._late.remove(asked)
                raise _LateError
            self._asked.remove(asked)

    def _line_up(self, groups: Sequence[_Group]) -> None:
        """Let messages stand in line for their pipelines' first filters; clocks bring them on from there."""
        now = self._now()
        batches = [batch for group in groups for batch in incoming(group[0].pipeline, _messages(group))]
        self._store.settle(lined=[one for batch in batches for one in in_line(batch, now)])

    def _spool(self, groups: Sequence[_Group]) -> None:
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
            for message in _messages(group)
        ]
        self._store.settle(held=held)
        SPOOLED.inc(len(held))


def _pause(taken: Sequence[_Handed], took: float) -> float:
    """Give the seconds in which the next requests may gather, behind a publish of these that took so long."""
    if len(taken) == 1 or _count(taken) >= FULL:
        return 0.0
    if len(taken) >= CROWD:
        return min(max(GAP - took, 2 * took), LONGEST)
    return min(took, GAP) if _count(taken) <= FEW else 0.0


def _count(handed: Iterable[_Handed]) -> int:
    return sum(len(one.messages) for one in handed)


def _messages(group: _Group) -> list[Message]:
    return [message for one in group for message in one.messages]


def _batches(group: _Group) -> list[Batch]:
    pipeline = group[0].pipeline
    pieces = [piece for one in group for piece in one.written]
    few = sum(piece.number for piece in pieces) <= FEW and sum(len(piece.text) for piece in pieces) <= FEW_BYTES
    return [first_batch(pipeline, part, few=few) for part in divide(pieces, most_at_first(pipeline))]


def _settle(handed: Sequence[_Handed], error: Exception | None) -> None:
    """Tell all who wait what became of their messages, each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for one in handed:
        by_loop.setdefault(one.accepted.get_loop(), []).append(one.accepted)
    for loop, waiting in by_loop.items():
        with suppress(RuntimeError):  # it is closed: nobody waits any more
            loop.call_soon_threadsafe(_tell, waiting, error)


def _tell(waiting: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for accepted in waiting:
        if accepted.done():  # whoever waited has given up
            continue
        if error is None:
            accepted.set_result(None)
        else:
            accepted.set_exception(error)


def _apart(handed: Sequence[_Handed]) -> Iterator[list[_Group]]:
    """Give what goes to the queue, and what is to stand in line: the fate of one is not that of the other."""
    by_pipeline: dict[str, list[_Handed]] = {}
    for one in handed:
        by_pipeline.setdefault(one.pipeline.spec.name, []).append(one)
    for ordered in (True, False):  # the broker may keep a thread for long, and another one has its place then
        if some := [group for group in by_pipeline.values() if group[0].pipeline.spec.ordered is ordered]:
            yield some
