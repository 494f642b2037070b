"""Publishing batches as Celery tasks, confirmed by the broker, within a bounded time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from amqp.exceptions import AccessRefused, NotAllowed
from celery import Celery
from kombu.utils.uuid import uuid

from pipeline.engine.batch import Batch, encode
from pipeline.errors import TemporaryError
from pipeline.queue.app import make_app, make_queue
from pipeline.queue.brokers import CONFIRM, broker
from pipeline.queue.wire import CONTENT_TYPE, ENCODING, headers
from pipeline.settings import Settings

PUBLISH_LIMIT: Final = 10.0
"""Seconds after which no further batch of a publish is begun: the broker then takes them too slowly, or not at all."""


@dataclass(slots=True)
class _Lent:
    """A connection to publish by, and the queues that were declared on it."""

    producer: Any
    declared: set[str] = field(default_factory=set)


class CeleryQueue:
    """The broker as the engine sees it (`engine.batch.Queue`); may be used by several threads and after a fork."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._quorum = app.conf.task_default_queue_type == "quorum"
        self._idle: dict[int, list[_Lent]] = {}  # of each process: a child leaves its parent's sockets alone
        self.largest: int = app.conf.siftbell_largest

    @classmethod
    def from_settings(cls, settings: Settings) -> CeleryQueue:
        """Make one for a process that only publishes; raises `ConfigError` for a broker that is not known."""
        return cls(make_app(broker(settings.broker_url)))

    def publish(self, batches: Sequence[Batch]) -> None:
        """Return when the broker has all batches; raises `TemporaryError` when it may not have them all.

        Ends within `PUBLISH_LIMIT` and the time for one batch (a connection, a confirm), however many batches there are.
        """
        end = time.monotonic() + PUBLISH_LIMIT
        try:
            with self._connected() as lent, lent.producer.batch():
                for batch in batches:
                    left = end - time.monotonic()
                    if left <= 0:
                        raise TimeoutError(f"it took longer than {PUBLISH_LIMIT:g} s")  # noqa: TRY301 - told like the broker's own
                    self._send(batch, lent, left)
        except Exception as error:
            raise TemporaryError(f"the broker did not take the messages: {self._told(error)}") from error

    def _send(self, batch: Batch, lent: _Lent, left: float) -> None:
        """Send a task past `Celery.send_task`, which routes each task, and looks each time for the queue."""
        lent.producer.publish(
            encode(batch),
            exchange="",
            routing_key=batch.queue,
            declare=[] if batch.queue in lent.declared else [make_queue(batch.queue, quorum=self._quorum)],
            content_type=CONTENT_TYPE,
            content_encoding=ENCODING,
            headers=headers(uuid(), batch),
            confirm_timeout=min(CONFIRM, left),
            retry=left > 2 * CONFIRM,
            retry_policy=self._app.conf.task_publish_retry_policy,
            mandatory=True,  # a queue that was deleted is an error, not the end of the batch
        )
        lent.declared.add(batch.queue)

    @contextmanager
    def _connected(self) -> Iterator[_Lent]:
        """Lend a connection that nobody uses. After an error it is not used again: a late confirm is no later batch's."""
        idle = self._idle.setdefault(os.getpid(), [])
        try:
            lent = idle.pop()
        except IndexError:
            told = {"on_blocked": _refuse_blocked} if self._quorum else {}
            lent = _Lent(self._app.amqp.Producer(self._app.connection_for_write(transport_options=told), auto_declare=False))
        try:
            yield lent
        except BaseException:
            with suppress(Exception):  # the first error tells more
                lent.producer.connection.collect()
            raise
        idle.append(lent)

    def check(self) -> None:
        """Ask the broker whether it is there; raises `TemporaryError` where it is not."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=2)
        except Exception as error:
            raise TemporaryError(f"the broker does not answer: {self._told(error)}") from error

    def _told(self, error: Exception) -> str:
        return told(error, self._app.connection_for_write().as_uri())

    def close(self) -> None:
        """Close the connections."""
        for lent in self._idle.pop(os.getpid(), []):
            with suppress(Exception):  # it was cut
                lent.producer.connection.release()
        self._app.close()


def _refuse_blocked(reason: str) -> None:
    """Take RabbitMQ's word that it reads nothing now: each further try would lie in its socket, and be there twice later."""
    raise TemporaryError(f"it takes nothing until its memory or disk has room again ({reason})")


def told(error: Exception, place: str) -> str:
    """Give a broker's error in one line; `place` is its URL with the password masked."""
    if isinstance(error, (AccessRefused, NotAllowed)):  # the reply tells what, and neither user nor password
        return f"{place} refuses: {str(error.reply_text).rstrip('.')}; look at SIFTBELL_BROKER"
    return f"{type(error).__name__}: {error} ({place})"
