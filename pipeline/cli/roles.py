"""`siftbell serve`, `worker` and `clock`: one role in one process, put together from the settings."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from pipeline.cli.failures import report
from pipeline.cli.options import ConfigOption, DataOption, settings_for

if TYPE_CHECKING:
    from pipeline.queue.publishing import CeleryQueue
    from pipeline.settings import Settings
    from pipeline.store import Store

PART: Final = "SIFTBELL_PART"
"""The variable that holds a part's name, which each of its log lines bears, and `ps` shows."""
LISTENING: Final = "SIFTBELL_LISTENING"
"""The variable that holds the number of the web server's socket, where the supervisor has bound it."""
KEY_FILE: Final = "SIFTBELL_KEY_FILE"
"""The variable that holds the file in which the web server keeps a key for the person who started it."""

MIGRATED: Final = "SIFTBELL_MIGRATED"
"""The variable that says that another part has brought the store's tables up to date just now."""

MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", min=0, max=65535, help="Serve /livez, /readyz and /metrics here.")
]


class Only(StrEnum):
    """Which half of a worker's work it does."""

    FILTERS = "filters"
    DELIVERIES = "deliveries"


def serve(config: ConfigOption = None, data: DataOption = None) -> None:
    """Serve the intake and the API."""
    settings = _begin(config, data, "web")
    from pipeline.engine.assembly import load_configuration
    from pipeline.engine.pipeline import Pipelines
    from pipeline.engine.publisher import Publisher
    from pipeline.web.app import create_app
    from pipeline.web.listening import listen
    from pipeline.web.server import serve as serve_web
    from pipeline.web.services import Services

    configuration = load_configuration(settings)
    with _edges(settings) as (store, queue):
        _keep_key(store)
        number = os.environ.get(LISTENING)
        listening = socket.socket(fileno=int(number)) if number else listen(settings.host, settings.port)
        publisher = Publisher(queue, store, timeout=settings.publish_timeout.total_seconds())
        serve_web(create_app(Services(Pipelines(configuration), store, publisher, settings, queue.check)), listening)


def worker(
    only: Annotated[Only | None, typer.Option("--only", help="Only filter, or only deliver.")] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Processes that filter, or batches delivered at once.")
    ] = None,
    metrics_port: MetricsPort = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Filter and deliver what is on the queue."""
    with _gathered_metrics():
        settings = _begin(config, data, only.value if only else "worker")
        from pipeline.queue.worker import run_worker

        with _edges(settings) as (store, queue), _side_port(settings, metrics_port, store, queue):
            code = run_worker(settings, only.value if only else "all", concurrency=concurrency)
    if code:
        sys.exit(code)


def clock(metrics_port: MetricsPort = None, config: ConfigOption = None, data: DataOption = None) -> None:
    """Bring back what was held, and ask producers on their schedules."""
    settings = _begin(config, data, "clock")
    from pipeline.engine.assembly import load_configuration, make_runner
    from pipeline.engine.clock import Clock

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    configuration = load_configuration(settings)
    with _edges(settings) as (store, queue), _side_port(settings, metrics_port, store, queue):
        runner = make_runner(settings, configuration, queue)
        owner = f"{socket.gethostname()}:{os.getpid()}"
        try:
            Clock(runner, owner=owner, retention=settings.retention, most_records=settings.retention_records).run(stopping)
        finally:
            runner.pipelines.close()
            runner.memory.close()
            runner.store.close()


def run_role(arguments: Sequence[str]) -> NoReturn:
    """Do in a forked process what the command does with these arguments, without what reads a command line (5 MB)."""
    try:
        match list(arguments):
            case ["serve"]:
                serve()
            case ["clock"]:
                clock()
            case ["worker", "--only", half]:
                worker(Only(half))
    except Exception as error:  # noqa: BLE001 - as in `main`
        sys.exit(report(error))
    sys.exit(0)


def _begin(config: list[Path] | None, data: Path | None, part: str) -> Settings:
    """Read the settings, begin to log, and tie this process to its supervisor where it has one."""
    from pipeline.cli.orphan import end_with_supervisor
    from pipeline.processes import give_memory_back, name_process
    from pipeline.telemetry import configure_logging

    give_memory_back()  # before there are threads, which would have their heaps already
    end_with_supervisor()
    if PART in os.environ:
        name_process(os.environ[PART])
    settings = settings_for(config, data)
    os.environ["SIFTBELL_DATA"] = str(settings.data)  # pipelines name their files by it
    configure_logging(settings.log_level, settings.log_format, part=os.environ.get(PART, part))
    return settings


@contextmanager
def _gathered_metrics() -> Iterator[None]:
    """Have the metrics of a worker's processes gathered, where nobody says where yet. Entered before anything counts."""
    with ExitStack() as closing:
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            from tempfile import TemporaryDirectory

            os.environ["PROMETHEUS_MULTIPROC_DIR"] = closing.enter_context(TemporaryDirectory(prefix="siftbell-metrics-"))
        yield


@contextmanager
def _edges(settings: Settings) -> Iterator[tuple[Store, CeleryQueue]]:
    """Open the store, with its tables brought up to date, and the way to the queue."""
    from pipeline.queue.publishing import CeleryQueue
    from pipeline.store import Store

    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as closing:
        store = Store(settings.store_url)
        closing.callback(store.close)
        if not os.environ.get(MIGRATED):
            _migrate(store)
        queue = CeleryQueue.from_settings(settings)
        closing.callback(queue.close)
        yield store, queue


def _migrate(store: Store) -> None:
    """Bring the store's tables up to date: in a child where it can be, for what is imported for it is 23 MB and used once."""
    from pipeline.cli.forkserver import FORKS
    from pipeline.processes import die_with_parent

    if FORKS:
        child = os.fork()
        if not child:
            try:
                die_with_parent()
                store.migrate()
            except BaseException:  # noqa: BLE001 - whatever it is, it is met again below
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return
    store.migrate()


@contextmanager
def _side_port(settings: Settings, port: int | None, store: Store, queue: CeleryQueue) -> Iterator[None]:
    """Serve health and metrics beside the work, where a port is set."""
    port = settings.metrics_port if port is None else port
    if port is None:
        yield
        return
    from pipeline.sideport import Checks, start_side_server

    server = start_side_server(port, Checks({"broker": queue.check, "store": store.ping}), host=settings.host)
    try:
        yield
    finally:
        server.close()


def _keep_key(store: Store) -> None:
    """Have a key that works in the file that the supervisor names: the one that is there, or a new one."""
    file = os.environ.get(KEY_FILE)
    if file is None:
        return
    from pipeline.cli.directory import read_text, write_private
    from pipeline.keys import SCOPES, create_key, digest_of

    digest = digest_of(read_text(Path(file)))
    if digest is None or store.key_by_digest(digest) is None:
        name = f"run on {socket.gethostname()}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"  # names are unique in a store
        write_private(Path(file), create_key(store, name, SCOPES))
