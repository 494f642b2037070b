"""A worker's side of the broker: it shares out its places among the queues, and reconnects where nothing comes any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from functools import partial
from typing import Any, Final

import structlog
from celery import Celery, bootsteps
from celery.bootsteps import RUN  # type: ignore[attr-defined] # celery-types leaves it out
from celery.worker import consumer as celery_consumer
from celery.worker.consumer.tasks import Tasks

from pipeline.queue.publishing import told
from pipeline.queue.request import BatchRequest
from pipeline.queue.turns import Turns

log = structlog.get_logger()

REFUSED_PAUSE: Final = 2.0
"""Seconds after which a broker that refused user, password or virtual host is asked again."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks for a stall."""
STALLED_LOOKS: Final = 2
"""Looks in a row that find a stall before the worker reconnects: one alone may see a batch on its way."""


class Consumer(celery_consumer.Consumer):
    """Celery's consumer without its delays by RabbitMQ, 28 queues in each virtual host: what waits is in our store."""

    class Blueprint(celery_consumer.Consumer.Blueprint):  # type: ignore[valid-type,misc] # celery-types has it as a variable
        """Celery's steps but one."""

        default_steps = [  # noqa: RUF012 - Celery's name and type
            step for step in celery_consumer.Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    conninfo: Any

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Tell in one line that the broker refuses the worker, and wait; the caller tries again, as with one that is away."""
        log.error("no connection; it is tried again", error=told(exc, self.conninfo.as_uri()), after=f"{REFUSED_PAUSE:g} s")
        time.sleep(REFUSED_PAUSE)


class TakeTurns(bootsteps.StartStopStep):
    """Lets each batch wait for its turn before it goes to the pool; what waits is forgotten with the connection it came by."""

    requires = (Tasks,)
    filters: Collection[str] = ()
    deliveries: Collection[str] = ()

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        conf = parent.app.conf
        self._consumer = parent
        self._paused: set[str] = set()
        self._loop = threading.get_ident()
        self.turns = parent.turns = Turns(
            parent.controller.concurrency,
            self.filters,
            self.deliveries,
            conf.worker_prefetch_multiplier,
            flow=lambda: parent.call_soon(self._regulate),
            later=self._later,
        )
        self._apart = bool(conf.worker_detect_quorum_queues)
        """Whether the broker has a window for each queue, as RabbitMQ has for quorum queues."""
        parent.initial_prefetch_count = self.turns.largest if self._apart else self.turns.window
        self._start = parent.on_task_request
        parent.on_task_request = self._came

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Let batches start; all queues are consumed on a new connection."""
        self._paused = set()
        self.turns.open()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Start nothing more."""
        self.turns.close()

    def _came(self, request: BatchRequest) -> None:
        request.turns = self.turns
        self.turns.came(request, lambda: self._start(request))
        self._regulate()  # at once: a transport's timer may hand over more before the loop's next round

    def _later(self, seconds: float) -> None:
        """Have `Turns.again` called in the worker's loop, whose timers are its own thread's."""
        again = partial(self._consumer.timer.call_after, seconds, self.turns.again)
        if threading.get_ident() == self._loop:
            again()  # `call_soon` would be looked at after the next wait for the broker
        else:
            self._consumer.call_soon(again)

    def _regulate(self) -> None:
        """Stop taking from queues that have enough here, and go on where there is room. Runs in the worker's loop."""
        consuming = self._consumer.task_consumer
        if self._apart or consuming is None or self._consumer.blueprint.state != RUN:
            return
        wanted = self.turns.paused()
        for queue in wanted - self._paused:
            consuming.cancel_by_queue(queue)
        resumed = self._paused - wanted
        for queue in resumed:
            consuming.add_queue(self._consumer.app.amqp.queues[queue])
        if resumed:
            consuming.consume()
        self._paused = wanted


class StallGuard(bootsteps.StartStopStep):
    """Reconnects where the window is full although nothing is under way: places that were lost would never become free."""

    requires = (Tasks,)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._looks = 0

    def include_if(self, parent: Any) -> bool:
        """Only where there is an event loop to raise in: all brokers but the one in memory."""
        return parent.hub is not None

    def start(self, parent: Any) -> None:
        """Begin to look."""
        self._looks = 0
        self._timer = parent.timer.call_repeatedly(LOOK_EVERY, self.look, (parent,))

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self, parent: Any) -> None:
        """Raise one of the connection's errors when this is the second look in a row that finds a stall."""
        qos: Any = getattr(getattr(parent.task_consumer, "channel", None), "qos", None)  # RabbitMQ's window is the server's
        full = hasattr(qos, "can_consume") and not qos.can_consume()
        self._looks = self._looks + 1 if full and parent.turns.idle() else 0
        if self._looks >= STALLED_LOOKS:
            self._looks = 0
            log.error("the worker holds messages that nobody works on; it reconnects, and they come again")
            raise parent.connection_errors[0]("the prefetch window is full although nothing is under way")


def add_steps(app: Celery, filters: Collection[str], deliveries: Collection[str]) -> None:
    """Have the app's workers share out their places among these queues, and watch for stalls."""
    app.conf.worker_consumer = f"{__name__}:{Consumer.__name__}"
    app.steps["consumer"].add(type("TakeTurns", (TakeTurns,), {"filters": tuple(filters), "deliveries": tuple(deliveries)}))
    app.steps["consumer"].add(StallGuard)
