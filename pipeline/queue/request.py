"""A batch as the worker's parent process sees it: where it came from, whose turn it is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from pipeline.engine.batch import Batch, decode
from pipeline.engine.runner import Runner
from pipeline.queue.turns import Turns

log = structlog.get_logger()


class BatchRequest(Request):
    """A batch under way: a worker that dies over it costs no message."""

    runner: Callable[[], Runner]
    apart: bool = False
    """Whether a batch over which a worker died is run apart (`suspects`): then the end of this worker proves nothing."""
    turns: Turns | None = None
    """Where it waits for its turn, from the moment when it has come."""
    time_start: float | None
    _already_cancelled: bool
    _argsrepr: str

    @property
    def queue(self) -> str:
        """The queue it came from: queues are bound to nothing but the nameless exchange, which goes by their names."""
        return str(self.delivery_info["routing_key"])

    @property
    def begun(self) -> bool:
        """Whether the pool has told that it works on it."""
        return self.time_start is not None

    def acknowledge(self) -> None:
        """Tell the broker that it is done."""
        if not self.acknowledged:
            try:
                super().acknowledge()
            finally:  # whatever the broker says, its place is free
                self._went(done=True)

    def reject(self, requeue: bool = False) -> None:
        """Tell the broker that it is to come again, or that nobody wants it."""
        if not self.acknowledged:
            try:
                super().reject(requeue)
            finally:
                self._went(done=not requeue)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Take a batch apart that its worker died over; anything else is put back on the queue by Celery's own rules."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps an exception that has a traceback
        # A task that calls sys.exit() takes its worker along, and is reported just before.
        if isinstance(error, (WorkerLostError, TimeLimitExceeded, SystemExit, KeyboardInterrupt)) and not self._already_cancelled:
            try:
                batch = decode(self.args[0])
                if self.apart and batch.deaths and not isinstance(error, TimeLimitExceeded):
                    log.warning("a worker died while a batch was run apart; it goes back", task=self.id, error=str(error))
                    self.reject(requeue=True)
                else:
                    self._take_apart(batch, error)
            except Exception:
                log.exception("a batch whose worker died goes back as a whole", task=self.id)
                self.reject(requeue=True)  # Celery would acknowledge one that took too long
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _take_apart(self, batch: Batch, error: BaseException) -> None:
        self.runner().lost(batch)
        log.error("a worker died over a batch", task=self.id, batch=self._argsrepr, error=str(error))
        self.acknowledge()

    def _went(self, *, done: bool) -> None:
        if self.turns is not None:
            self.turns.went(self, done=done)
