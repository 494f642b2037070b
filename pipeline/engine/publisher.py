"""The intake's publisher: collects what waits while the last publish is under way, and spools while the broker is away."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Final

import structlog

from pipeline.engine.batch import Batch, Queue
from pipeline.engine.decisions import Now, utc_now
from pipeline.engine.lanes import in_line
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.runner import incoming
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


@dataclass(frozen=True, slots=True)
class _Handed:
    pipeline: Pipeline
    producer: str
    messages: Sequence[Message]
    accepted: Future[None]


class Publisher:
    """One thread that publishes for all requests of a process.

    Whatever was handed in while a publish was under way goes out with the next one: one batch per pipeline, no timer,
    no delay when idle. A broker that does not answer within `timeout` seconds is left to itself until it does: what it was
    given goes to the spool as well, and may come twice.
    """

    def __init__(self, queue: Queue, store: Store, *, timeout: float = 5.0, now: Now = utc_now) -> None:
        self._queue = queue
        self._timeout = timeout
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="to the broker")
        self._late: Future[None] | None = None
        self._store = store
        self._now = now
        self._waiting: deque[_Handed] = deque()
        self._count = 0
        self._wake = threading.Condition()
        self._closing = False
        self._away_until = 0.0
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    @property
    def largest(self) -> int:
        """Bytes as JSON of the largest message that may be handed in."""
        return self._queue.largest

    def submit(self, pipeline: Pipeline, producer: str, messages: Sequence[Message]) -> Future[None]:
        """Hand messages in; the future is done when they are accepted: on the queue, or fsynced in the spool.

        It fails with `TemporaryError` when neither could be had, or when too many messages wait already.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # no caller may cancel what the publisher is about to settle
        with self._wake:
            if self._closing:
                future.set_exception(TemporaryError("this server is stopping", retry_after=5))
            elif self._count + len(messages) > MAX_WAITING:
                future.set_exception(TemporaryError("more messages arrive than the broker takes", retry_after=1))
            else:
                self._waiting.append(_Handed(pipeline, producer, messages, future))
                self._count += len(messages)
                self._wake.notify()
        return future

    def close(self) -> None:
        """Publish what was handed in, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._asking.shutdown()

    def _run(self) -> None:
        while taken := self._take():
            for handed in _apart(taken):
                self._accept(handed)

    def _accept(self, handed: Sequence[_Handed]) -> None:
        try:
            self._publish(handed)
        except Exception as error:
            log.exception("messages refused")
            for one in handed:
                one.accepted.set_exception(error)
            return
        for one in handed:
            ACCEPTED.labels(one.pipeline.spec.name, one.producer).inc(len(one.messages))
            one.accepted.set_result(None)

    def _take(self) -> list[_Handed]:
        """Wait for messages and take all there are; an empty list means that it is time to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._closing)
            handed = list(self._waiting)
            self._waiting.clear()
            self._count = 0
            return handed

    def _publish(self, handed: Sequence[_Handed]) -> None:
        by_pipeline: dict[str, tuple[Pipeline, list[Message]]] = {}
        for one in handed:
            by_pipeline.setdefault(one.pipeline.spec.name, (one.pipeline, []))[1].extend(one.messages)
        if handed[0].pipeline.spec.ordered:
            self._line_up(by_pipeline.values())
            return
        if not self._queued([batch for pipeline, messages in by_pipeline.values() for batch in incoming(pipeline, messages)]):
            self._spool(by_pipeline.values())

    def _queued(self, batches: Sequence[Batch]) -> bool:
        """Say whether the broker has confirmed the batches in time."""
        if monotonic() < self._away_until or (self._late is not None and not self._late.done()):
            return False
        publishing = self._asking.submit(self._queue.publish, batches)
        try:
            with PUBLISH_SECONDS.time():
                publishing.result(self._timeout)
        except TimeoutError:
            self._late = publishing
            log.warning("the broker does not answer, messages go to the spool", waited=f"{self._timeout:g} s")
            return False
        except TemporaryError as away:
            self._away_until = monotonic() + PAUSE
            log.warning("the broker is away, messages go to the spool", error=str(away))
            return False
        return True

    def _line_up(self, waiting: Iterable[tuple[Pipeline, list[Message]]]) -> None:
        """Let messages stand in line for their pipelines' first filters; clocks bring them on from there."""
        now = self._now()
        batches = [batch for pipeline, messages in waiting for batch in incoming(pipeline, messages)]
        self._store.settle(lined=[one for batch in batches for one in in_line(batch, now)])

    def _spool(self, waiting: Iterable[tuple[Pipeline, list[Message]]]) -> None:
        now = self._now()
        held = [
            Held(
                message=message,
                pipeline=pipeline.spec.name,
                step="",
                why=Why.SPOOL,
                due=now,
                revision=pipeline.spec.revision,
            )
            for pipeline, messages in waiting
            for message in messages
        ]
        self._store.settle(held=held)
        SPOOLED.inc(len(held))


def _apart(handed: Sequence[_Handed]) -> Iterator[list[_Handed]]:
    """Give what goes to the queue, and what is to stand in line: the fate of one is not that of the other."""
    for ordered in (False, True):
        if some := [one for one in handed if one.pipeline.spec.ordered is ordered]:
            yield some
