"""The worker: a Celery worker on the queues of the configuration, in this process."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any, Literal

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown, worker_shutting_down
from prometheus_client import multiprocess

from pipeline.engine.assembly import load_configuration, make_runner
from pipeline.processes import die_with_parent
from pipeline.queue.app import PerProcess, add_tasks, make_app, queue_names
from pipeline.queue.brokers import broker
from pipeline.queue.publishing import CeleryQueue
from pipeline.settings import Settings

Role = Literal["all", "filters", "deliveries"]
DELIVERY_THREADS = 16
"""Batches that one worker delivers at once; each has as many messages under way as its step's `concurrency:`."""


def worker_app(settings: Settings, role: Role = "all") -> Celery:
    """Make the app that a worker runs: with the queues of its role, and the tasks; raises `ConfigError`."""
    configuration = load_configuration(settings)
    filters, deliveries = queue_names(configuration)
    queues = {"all": filters + deliveries, "filters": filters, "deliveries": deliveries}[role]
    app = make_app(broker(settings.broker_url), queues)
    add_tasks(app, PerProcess(lambda: make_runner(settings, configuration, CeleryQueue(app))))
    return app


def run_worker(settings: Settings, role: Role = "all", *, concurrency: int | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT, which let it finish what it works on; gives the exit code.

    Deliveries wait for other systems and run in threads; filters compute and run in processes, as many as there are cores.
    """
    app = worker_app(settings, role)
    for each_task in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(each_task).setLevel(logging.DEBUG if settings.log_level == "debug" else logging.WARNING)
    threads = role == "deliveries"
    worker: Any = app.Worker(
        hostname=f"{role}@{socket.gethostname()}",
        pool_cls="threads" if threads else "prefork",
        concurrency=concurrency or (DELIVERY_THREADS if threads else os.cpu_count() or 1),
        loglevel=settings.log_level.upper(),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    shutdowns: list[str] = []

    def note(how: str, **_: Any) -> None:
        shutdowns.append(how)

    worker_shutting_down.connect(note)
    worker.start()
    if shutdowns and set(shutdowns) == {"Warm"}:
        return 0  # Celery's own code after Ctrl-C is 1, even where everything was finished
    return int(worker.exitcode or 0)


@worker_process_init.connect(weak=False)
def _begin(**_: Any) -> None:
    die_with_parent()


@worker_process_shutdown.connect(weak=False)
def _end(pid: int, **_: Any) -> None:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call] # prometheus-client leaves it untyped
