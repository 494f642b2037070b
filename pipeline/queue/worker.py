"""The worker: a Celery worker on the queues of the configuration, in this process."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import socket
import warnings
from contextlib import closing
from typing import Any, Final, Literal

import structlog
from billiard.util import get_logger
from celery import Celery, platforms
from celery.apps import worker as celery_program
from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning, SecurityWarning
from celery.signals import worker_process_init, worker_process_shutdown, worker_shutting_down
from prometheus_client import multiprocess

from pipeline.engine.assembly import load_configuration, make_runner
from pipeline.engine.batch import PROCESS_QUEUE, is_for_consumers
from pipeline.engine.decisions import utc_now
from pipeline.errors import PipelineError
from pipeline.processes import die_with_parent
from pipeline.queue.app import PerProcess, add_tasks, make_app, queue_names
from pipeline.queue.brokers import broker
from pipeline.queue.consuming import add_steps
from pipeline.queue.pool import Processes
from pipeline.queue.publishing import CeleryQueue
from pipeline.queue.suspects import trial
from pipeline.queue.watchdog import Watchdog
from pipeline.settings import Settings
from pipeline.store import Store

log = structlog.get_logger()

Role = Literal["all", "filters", "deliveries"]
DELIVERY_THREADS = 32
"""Batches that one worker delivers at once, half of them of one consumer at most (`turns`); those of one consumer together have
as many messages under way as its step's `concurrency:`. A worker with more consumers than half of these has more threads: one
each beside the half."""


_IMPORTED_LATE: Final = (
    "billiard.connection",
    "billiard.pool",
    "billiard.popen_fork",
    "billiard.synchronize",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.backends.base",
    "celery.concurrency.prefork",
    "celery.concurrency.thread",
    "celery.events.receiver",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.strategy",
    "kombu.pidbox",
)
"""What Celery imports by name while a worker starts."""


def worker_app(settings: Settings, role: Role = "all") -> Celery:
    """Make the app that a worker runs: with the queues of its role, and the tasks; raises `ConfigError`."""
    configuration = load_configuration(settings)
    filters, deliveries = _with_former(settings, *queue_names(configuration))
    queues = {"all": filters + deliveries, "filters": filters, "deliveries": deliveries}[role]
    app = make_app(broker(settings.broker_url), queues)
    add_tasks(app, PerProcess(lambda: make_runner(settings, configuration, CeleryQueue(app))), trial(settings))
    add_steps(app, set(filters) & set(queues), set(deliveries) & set(queues))
    return app


def run_worker(settings: Settings, role: Role = "all", *, concurrency: int | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT, which let it finish what it works on; gives the exit code.

    Deliveries wait for other systems and run in threads; filters compute and run in processes, as many as there are cores.
    """
    app = worker_app(settings, role)
    _keep_to_the_log(debug=settings.log_level == "debug")
    # billiard's own way reads a C declaration where cffi is installed: 12 MB and a quarter of a second in every process.
    platforms.set_pdeathsig = lambda _: die_with_parent()  # type: ignore[attr-defined] # celery-types leaves it out
    threads = role == "deliveries"
    worker: Any = app.Worker(
        hostname=f"{role}@{socket.gethostname()}",
        pool_cls="threads" if threads else Processes,
        concurrency=concurrency or (_threads(app) if threads else os.cpu_count() or 1),
        loglevel=settings.log_level.upper(),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    _take_over_logging()
    shutdowns: list[str] = []

    def note(how: str, **_: Any) -> None:
        shutdowns.append(how)

    worker_shutting_down.connect(note)
    Watchdog(app, app.amqp.queues).start()
    gc.freeze()  # a collection would write to all of it in each process that the pool forks, and end the sharing
    worker.start()
    if shutdowns and set(shutdowns) == {"Warm"}:
        return 0  # Celery's own code after Ctrl-C is 1, even where everything was finished
    return int(worker.exitcode or 0)


def preload_worker(broker_url: str) -> None:
    """Import what a worker on this broker imports when it begins to work, for processes that will be forked from this one."""
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    app = make_app(broker(broker_url), [PROCESS_QUEUE])
    app.connection_for_write().close()
    app.close()


def _with_former(settings: Settings, filters: list[str], deliveries: list[str]) -> tuple[list[str], list[str]]:
    """Add the queues that the configuration had before: what still waits there is buried with the reason, and not forgotten."""
    with closing(Store(settings.store_url)) as store:
        try:
            known = store.remember_queues({*filters, *deliveries}, utc_now())
        except PipelineError as error:
            log.warning("queues that are gone from the configuration are not looked at", error=str(error))
            return filters, deliveries
    former = known - {*filters, *deliveries}
    out = {name for name in former if is_for_consumers(name)}
    return sorted({*filters, *(former - out)}), sorted({*deliveries, *out})


def _threads(app: Celery) -> int:
    return max(DELIVERY_THREADS, DELIVERY_THREADS // 2 + len(app.amqp.queues))


def _keep_to_the_log(*, debug: bool) -> None:
    """Leave out what Celery tells about itself beside the log, and what nobody on call can use."""
    # It recommends an option of the `celery` command; what it warns of is code on the queue, which only ever holds JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    celery_program.safe_say = _say_nothing  # type: ignore[attr-defined] # celery-types leaves it out
    if debug:
        return
    for chatty in (
        "celery.worker.strategy",
        "celery.app.trace",
        "celery.worker.consumer.connection",
        "celery.worker.consumer.tasks",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _take_over_logging() -> None:
    """Undo what Celery sets when it makes a worker: a log of its own for billiard, and its advice on settings at each outage."""
    warnings.filterwarnings("ignore", category=CDeprecationWarning)
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    billiard_log = get_logger()
    billiard_log.handlers.clear()
    billiard_log.propagate = True
    billiard_log.setLevel(logging.ERROR)


def _say_nothing(*_: Any, **__: Any) -> None:
    """Take the place of Celery's lines on stdout, such as `Warm shutdown`: a line that is no JSON among JSON lines."""


@worker_process_init.connect(weak=False)
def _begin(**_: Any) -> None:
    die_with_parent()


@worker_process_shutdown.connect(weak=False)
def _end(pid: int, **_: Any) -> None:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call] # prometheus-client leaves it untyped
