"""Fetches the messages of one queue, in a thread of its own: no queue waits for another's long poll."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kombu.log import get_logger

from pipeline.queue.sqs.claims import Claims
from pipeline.queue.sqs.errors import SqsError
from pipeline.queue.sqs.service import AT_ONCE, Service

logger = get_logger(__name__)

LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries while SQS is away."""


class Poller:
    """Parks what it receives with the claims and calls `found`; a queue or an SQS that is away is asked again and again."""

    def __init__(
        self, service: Service, claims: Claims, queue: str, *, queues: Callable[[], int], found: Callable[[], None]
    ) -> None:
        self._service = service
        self._claims = claims
        self._queue = queue
        self._queues = queues
        self._found = found
        self._stirred = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sqs-{queue}", daemon=True)
        self._thread.start()

    def stir(self) -> None:
        """Note that there may be room again."""
        self._stirred.set()

    def stop(self) -> None:
        """Fetch no more; what a request under way still brings is handed back."""
        self._stopping.set()
        self._stirred.set()

    def runs(self) -> bool:
        """Say whether a request is still under way, or may be made."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait for the request under way."""
        self._thread.join(timeout)

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            self._stirred.clear()
            wanted = self._claims.wanted(self._queue, self._queues(), AT_ONCE)
            if not wanted:
                self._stirred.wait(1)
                continue
            try:
                claims = self._service.receive(self._queue, wanted, self._service.settings.wait)
            except SqsError as error:
                if not pause:
                    logger.warning("queue %s cannot be asked, it is tried again: %s", self._queue, error)
                pause = min(LONGEST_PAUSE, 2 * pause or 0.5)
                self._stirred.wait(pause)
                continue
            if pause:
                logger.warning("queue %s answers again", self._queue)
                pause = 0.0
            if self._stopping.is_set():
                self._claims.hand_back(claims)
            elif claims:
                self._claims.park(claims)
                self._found()
