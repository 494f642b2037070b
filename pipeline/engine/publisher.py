"""The intake's publisher: collects what waits while the last publish is under way, and spools while the broker is away."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
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


@dataclass(slots=True)
class _Handed:
    pipeline: Pipeline
    producer: str
    messages: Sequence[Message]
    written: Sequence[Written]
    accepted: asyncio.Future[None]


_Group = list[_Handed]
"""What was handed in for one pipeline."""


class Publisher:
    """What publishes for all requests of a process, in threads of its own.

    Whatever was handed in while a publish was under way goes out with the next one, one batch per pipeline. Behind a
    single request there is no delay; behind a crowd of them, or several of few messages, the next ones are given as long as their
    publish took to gather. Messages that are enough for a publish of their own do not wait for another's end. A broker that does
    not answer within `timeout` seconds is left to itself until it does: what it was given goes to the spool as well, and may come
    twice.
    """

    def __init__(self, queue: Queue, store: Store, *, timeout: float = 5.0, now: Now = utc_now) -> None:
        self._queue = queue
        self._timeout = timeout
        self._asking = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="to the broker")
        self._late: set[Future[None]] = set()
        self._store = store
        self._now = now
        self._waiting: list[_Handed] = []
        self._count = 0
        self._under_way = 0
        self._wake = threading.Condition()
        self._closing = False
        self._away_until = 0.0
        self._threads = [threading.Thread(target=self._run, name="publisher", daemon=True) for _ in range(AT_ONCE)]
        for thread in self._threads:
            thread.start()

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
                if self._is_time():
                    self._wake.notify()
        return accepted

    def close(self) -> None:
        """Publish what was handed in, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        self._asking.shutdown()

    def _run(self) -> None:
        while taken := self._take():
            began = monotonic()
            try:
                for groups in _apart(taken):
                    self._accept(groups)
                if pause := _pause(taken, monotonic() - began):
                    sleep(pause)
            finally:
                with self._wake:
                    self._under_way -= 1

    def _accept(self, groups: Sequence[_Group]) -> None:
        handed = [one for group in groups for one in group]
        try:
            self._publish(groups)
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

    def _is_time(self) -> bool:
        """Say whether what waits is to be published now, beside what is under way."""
        return self._count >= (FULL if self._under_way else 1)

    def _publish(self, groups: Sequence[_Group]) -> None:
        if groups[0][0].pipeline.spec.ordered:
            self._line_up(groups)
        elif not self._queued([batch for group in groups for batch in _batches(group)]):
            self._spool(groups)

    def _queued(self, batches: Sequence[Batch]) -> bool:
        """Say whether the broker has confirmed the batches in time."""
        if self._late or monotonic() < self._away_until:
            return False
        publishing = self._asking.submit(self._queue.publish, batches)
        try:
            with PUBLISH_SECONDS.time():
                publishing.result(self._timeout)
        except TimeoutError:
            self._late.add(publishing)
            publishing.add_done_callback(self._late.discard)
            log.warning("the broker does not answer, messages go to the spool", waited=f"{self._timeout:g} s")
            return False
        except TemporaryError as away:
            self._away_until = monotonic() + PAUSE
            log.warning("the broker is away, messages go to the spool", error=str(away))
            return False
        return True

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
        return min(max(GAP - took, took), LONGEST)
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
    for ordered in (False, True):
        if some := [group for group in by_pipeline.values() if group[0].pipeline.spec.ordered is ordered]:
            yield some
