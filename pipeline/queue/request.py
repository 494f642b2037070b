"""A batch as the worker's parent process sees it: where it came from, whose turn it is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import structlog
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request
from celery.worker.state import revoked, task_ready

from pipeline.engine.batch import MAX_BYTES, Batch, decode
from pipeline.engine.joined import Outline, joined, outline
from pipeline.engine.runner import Runner
from pipeline.queue.lane import Turn
from pipeline.queue.suspects import came_before
from pipeline.queue.turns import Turns

log = structlog.get_logger()


class BatchRequest(Request):
    """A batch under way: a worker that dies over it costs no message.

    Others may be run with it as one, its company. What is done is then done for all; where nothing came of it, each goes back by
    itself. Batches that were delivered before have no company: what may have killed a worker is found out one by one.
    """

    runner: Callable[[], Runner]
    apart: bool = False
    """Whether a batch over which a worker died is run apart (`suspects`): then the end of this worker proves nothing."""
    turns: Turns | None = None
    """Where it waits for its turn, from the moment when it has come."""
    time_start: float | None
    _already_cancelled: bool
    _already_revoked: bool
    _argsrepr: str

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._company: list[BatchRequest] = []
        # As it is, and nothing else, it goes to the pool: Celery would have it there a second time, as its bytes.
        self._texts = [*self.args]
        self._body: Any = (self._texts, self.kwargs, {})
        self._content_type = self._content_encoding = None
        self.size = sum(len(text) if isinstance(text, bytes | str) else MAX_BYTES for text in self._texts) or MAX_BYTES

    @property
    def queue(self) -> str:
        """The queue it came from: queues are bound to nothing but the nameless exchange, which goes by their names."""
        return str(self.delivery_info["routing_key"])

    @property
    def begun(self) -> bool:
        """Whether the pool has told that it works on it."""
        return self.time_start is not None

    @property
    def kind(self) -> object:
        """All that batches say beside their messages, if they may run as one."""
        return self.outline and self.outline.kind

    @cached_property
    def outline(self) -> Outline | None:
        """What it says beside its messages, where it may have company."""
        return None if came_before(self.request_dict) else outline(self._texts[0])

    def take_along(self, other: Turn, full: int = 1) -> bool:
        """Be run as one with another that waits, if they are alike and no more than so many full ones; tell that."""
        assert isinstance(other, BatchRequest)
        if other.id in revoked or self.size + other.size > full * MAX_BYTES or self.outline is None or other.outline is None:
            return False
        both = self.outline.join(other.outline, full)
        if both is None:
            return False
        self.outline = both
        self.size += other.size
        self._company.append(other)
        self._texts.append(other.args[0])
        return True

    def acknowledge(self) -> None:
        """Tell the broker that it is done, and its company with it."""
        if not self.acknowledged:
            try:
                super().acknowledge()
            finally:  # whatever the broker says, its place is free
                self._went(done=True)
        self._part(BatchRequest.acknowledge)

    def reject(self, requeue: bool = False) -> None:
        """Tell the broker that it is to come again, or that nobody wants it."""
        if not self.acknowledged:
            try:
                super().reject(requeue)
            finally:
                self._went(done=not requeue)

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Note that it has begun, and its company."""
        super().on_accepted(pid, time_accepted)
        for one in self._company:
            one.on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Take a batch apart that its worker died over; anything else is put back on the queue by Celery's own rules."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps an exception that has a traceback
        # A task that calls sys.exit() takes its worker along, and is reported just before.
        if isinstance(error, (WorkerLostError, TimeLimitExceeded, SystemExit, KeyboardInterrupt)) and not self._already_cancelled:
            try:
                batch = joined([decode(text) for text in self._texts])
                if self.apart and batch.deaths and not isinstance(error, TimeLimitExceeded):
                    log.warning("a worker died while a batch was run apart; it goes back", task=self.id, error=str(error))
                    self.reject(requeue=True)
                else:
                    self._take_apart(batch, error)
            except Exception:
                log.exception("a batch whose worker died goes back as a whole", task=self.id)
                self.reject(requeue=True)  # Celery would acknowledge one that took too long
        elif isinstance(error, Terminated) and not (self._already_cancelled or self._already_revoked):
            self.reject(requeue=True)  # an operator named another that ran with it
        self._part(_go_back)
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _take_apart(self, batch: Batch, error: BaseException) -> None:
        self.runner().lost(batch)
        log.error("a worker died over a batch", task=self.id, batch=self._argsrepr, error=str(error))
        self.acknowledge()

    def _announce_revoked(self, *args: Any) -> None:
        self._part(_go_back)  # an operator named this one
        super()._announce_revoked(*args)  # type: ignore[misc] # celery-types leaves it out

    def _part(self, settle: Callable[[BatchRequest], None]) -> None:
        """End the company, each with what becomes of it."""
        company, self._company = self._company, []
        for one in company:
            task_ready(one)
            settle(one)

    def _went(self, *, done: bool) -> None:
        if self.turns is not None:
            self.turns.went(self, done=done)


def _go_back(request: BatchRequest) -> None:
    request.reject(requeue=True)
