"""The watchdog: ends a worker that stands idle beside a queue that is not empty, so that it is started again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any, Final

import structlog
from celery import Celery
from celery.worker import state

log = structlog.get_logger()

PATIENCE: Final = 60.0
"""Seconds for which a worker may stand idle beside its backlog. What is known to stall one is mended much sooner
(`consuming.StallGuard`): this is for what nobody knows yet."""
LOOK_EVERY: Final = 10.0


class Watchdog:
    """Looks at one worker from a thread of its own, over a connection of its own."""

    def __init__(self, app: Celery, queues: Collection[str], *, stalled: Callable[[], None] | None = None) -> None:
        self._app = app
        self._queues = sorted(queues)
        self._stalled = stalled or _end
        self._begun = -1
        self._looked = 0.0
        self._idle_since: float | None = None

    def start(self) -> None:
        """Look every few seconds until the process ends."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def look(self, now: float) -> None:
        """Look once. A worker that has something under way is not idle, and a broker that does not answer is no backlog.

        A time in which nobody looked, because the process was stopped or the machine slept, is no idleness.
        """
        begun = sum(state.total_count.values())
        paused, self._looked = now - self._looked > PATIENCE / 2, now
        if paused or begun != self._begun or state.reserved_requests or not self._backlog():
            self._begun, self._idle_since = begun, None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= PATIENCE:
            log.error("this worker stands idle beside its backlog; it ends, to be started again", idle=f"{PATIENCE:g} s")
            self._stalled()

    def _run(self) -> None:
        wait = threading.Event().wait
        while not wait(LOOK_EVERY):
            self.look(monotonic())

    def _backlog(self) -> bool:
        try:
            with self._app.connection_for_read() as connection:
                channel: Any = connection.default_channel
                return any(channel.queue_declare(name, passive=True).message_count for name in self._queues)
        except Exception as error:  # noqa: BLE001 - away, or a queue is not there yet: the worker itself tells of that
            log.debug("the backlog cannot be seen", error=type(error).__name__)
            return False


def _end() -> None:
    os._exit(1)  # nothing is under way; its processes end with it
