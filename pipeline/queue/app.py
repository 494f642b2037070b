"""The Celery app: its settings, its queues and its two tasks."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Queue

from pipeline.engine.batch import DELIVER_QUEUE, PROCESS_QUEUE
from pipeline.engine.runner import Runner
from pipeline.queue.brokers import Broker
from pipeline.queue.request import BatchRequest
from pipeline.queue.suspects import Try, work
from pipeline.queue.wire import CONTENT_TYPE, register
from pipeline.spec.model import Configuration

log = structlog.get_logger()

FILTER_LIMIT: Final = 120
"""Seconds that a batch may be filtered; then its process is killed, and the batch is treated as one whose worker died."""
PREFETCH: Final = 4
"""Batches of a queue that a worker takes in advance for each process or thread it may use for it; fewer where these are many."""


NO_DELIVERY_LIMIT: Final = 1_000_000_000
"""How often RabbitMQ hands a batch out before it drops it: from 4.0 on 20 times where a queue does not say otherwise, which
a store that is away for a minute uses up. To 4.0 a -1 means no limit, but 3.10 drops at the first return then (measured)."""


def queue_names(configuration: Configuration) -> tuple[list[str], list[str]]:
    """Give the names of the queues to filter from and to deliver from, as the pipelines name them."""
    filters, deliveries = {PROCESS_QUEUE}, set()
    for spec in configuration.pipelines.values():
        filters |= {step.queue for step in spec.filters if step.queue}
        deliveries |= {DELIVER_QUEUE.format(step.queue) for step in spec.consumers}
    return sorted(filters), sorted(deliveries)


def make_app(broker: Broker, queues: Iterable[str] = ()) -> Celery:
    """Make an app on a broker; `queues` are those that a worker consumes when it is not told which (`-Q`)."""
    register()
    app = Celery("siftbell", set_as_current=False, autofinalize=True)
    app.conf.update(
        broker_url=broker.url,
        broker_transport_options=broker.transport_options,
        siftbell_largest=broker.largest,
        broker_connection_timeout=2,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # a refused login is a channel's error to amqp; one that is corrected is found
        broker_pool_limit=None,
        task_queues=[make_queue(name, quorum=broker.quorum) for name in queues] or None,
        task_default_queue=PROCESS_QUEUE,
        task_default_exchange="",
        task_default_queue_type="quorum" if broker.quorum else "classic",
        worker_detect_quorum_queues=broker.quorum,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=[CONTENT_TYPE, "json"],  # JSON: batches of former versions, remote control
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
        worker_prefetch_multiplier=PREFETCH,
        worker_enable_prefetch_count_reduction=False,  # the window is `consuming.TakeTurns`'s
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_soft_shutdown_timeout=10,
        worker_enable_soft_shutdown_on_idle=True,
        worker_proc_alive_timeout=30,
    )
    return app


def make_queue(name: str, *, quorum: bool) -> Any:
    """Make a queue as all processes declare it: RabbitMQ refuses a queue that is there with other arguments."""
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT} if quorum else None
    return Queue(name, Exchange("", type="direct"), routing_key=name, queue_arguments=arguments)


class PerProcess:
    """Makes a runner in each process that asks for one, for worker children come from a fork."""

    def __init__(self, make: Callable[[], Runner]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: dict[int, Runner] = {}
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self) -> Runner:
        """Give this process's runner."""
        with self._lock:
            pid = os.getpid()
            if pid not in self._made:
                self._made[pid] = self._make()
            return self._made[pid]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._made = {}


def add_tasks(app: Celery, runner: Callable[[], Runner], hold_trial: Try | None = None) -> None:
    """Give the app its two tasks. Nothing may escape them but `Reject`: Celery acknowledges a task that fails otherwise."""
    request = type("Request", (BatchRequest,), {"runner": staticmethod(runner), "apart": hold_trial is not None})

    def run(task: Any, *bodies: bytes | str) -> None:
        texts = [body.encode() if isinstance(body, str) else body for body in bodies]  # of a batch that came as JSON
        try:
            work(runner(), task.request, texts, hold_trial)
        except Exception as error:
            log.exception("a batch goes back to its queue")
            time.sleep(random.uniform(0.5, 2))  # noqa: S311 - so that a store that is away is not asked in a tight loop
            raise Reject(str(error), requeue=True) from error

    app.task(name="siftbell.process", shared=False, bind=True, Request=request, time_limit=FILTER_LIMIT)(run)
    app.task(name="siftbell.deliver", shared=False, bind=True, Request=request)(run)
