"""The bench: one Siftbell tree with the servers, proxies, disks and consumers around it, all of them the harness's own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, select

from harness.background import Background
from harness.disk import Disk
from harness.ledger import Ledger
from harness.pipelines import CAN_BE_ORDERED, CONSUMERS, FILE, SINKS, Waits, pipeline_yaml
from harness.processes import TooLateError, children, descendants, gone, leaders, send, until
from harness.proxy import Proxy
from harness.servers import Postgres, RabbitMQ, Redis, Server, Sqs, free_port
from harness.sink import DECODER, Sink
from pipeline.cli.failures import Failure
from pipeline.cli.tree import Tree
from pipeline.store.database import Database
from pipeline.store.tables import dead_letters, held, records

PARTS = frozenset({"web", "clock", "filters", "deliveries"})
_BROKERS: Mapping[str, type[Server]] = {"redis": Redis, "rabbitmq": RabbitMQ, "sqs": Sqs}
_LOOK = 0.05
_SHOWN = {"timestamp", "part", "level", "event", "exception", "logger"}
_WIDTH = 240


@dataclass(frozen=True, slots=True)
class Combination:
    """A broker and a store that are tested together."""

    name: str
    broker: str
    store: str


COMBINATIONS: Mapping[str, Combination] = {
    one.name: one
    for one in (
        Combination("sqlite", "sqlite", "sqlite"),
        Combination("redis", "redis", "sqlite"),
        Combination("redis-postgres", "redis", "postgres"),
        Combination("rabbitmq", "rabbitmq", "postgres"),
        Combination("sqs", "sqs", "sqlite"),
    )
}


class Bench:
    """Starts everything, and ends it when left. `attach` gives it the ledger that it is to write arrivals into."""

    def __init__(
        self, combination: Combination, place: Path, *, ordered: Collection[str] = ("beta",), waits: Waits | None = None
    ) -> None:
        self.combination = combination
        self.place = place
        self.notes: list[str] = []
        """What happened that nobody had asked for, such as a tree that ended by itself."""
        self.background = Background()
        self.sinks = {name: Sink(name, self.background, seed) for seed, name in enumerate(SINKS)}
        self.store_disk = Disk(place / "store-disk")
        self.queue_disk = Disk(place / "queue-disk")
        kind = _BROKERS.get(combination.broker)
        self.broker = kind(place / "broker") if kind else None
        self.store = Postgres(self.store_disk.place / "postgres") if combination.store == "postgres" else None
        self.broker_proxy = Proxy(self.background, self.broker.port) if self.broker else None
        self.store_proxy = Proxy(self.background, self.store.port) if self.store else None
        self.tree: Tree | None = None
        self.config = place / "configs" / "faults.yaml"
        self._port = free_port()
        self._ordered = ordered if CAN_BE_ORDERED else ()
        self._waits = waits or Waits()
        self._ledger: Ledger | None = None
        # The kernel kills a process when the thread that started it ends: this one lives as long as the bench.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starter")
        self._started: Future[Any] | None = None
        self._starting = threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            closing.callback(self._close)
            for server in self.servers:
                server.prepare()
                server.launch()
            for server in self.servers:
                server.start()
            self.config.parent.mkdir(parents=True, exist_ok=True)
            self.write_config()
            self.background.loop.call_soon_threadsafe(lambda: self.background.loop.create_task(self._follow()))
            self.launch_tree()
            self.await_ready()
            closing.pop_all()
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._close()

    @property
    def servers(self) -> list[Server]:
        """The servers that there are."""
        return [server for server in (self.broker, self.store) if server]

    @property
    def url(self) -> str:
        """Where Siftbell listens: the same after each start."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def key(self) -> str:
        """The API key, which stays the same."""
        return (self.place / "data" / "api-key").read_text().strip()

    @property
    def log(self) -> Path:
        """What the tree logs."""
        return self.place / "tree.log"

    def new_ledger(self) -> Ledger:
        """Make a ledger, and write arrivals into it from now on."""
        ledger = Ledger(CONSUMERS, self._ordered)
        self._ledger = ledger
        for sink in self.sinks.values():
            sink.ledger = ledger
        return ledger

    def write_config(self, text: str | None = None) -> None:
        """Write the pipeline's file: the good one, where no text is given."""
        urls = {name: sink.url for name, sink in self.sinks.items()}
        self.config.write_text(pipeline_yaml(urls, self.place / FILE, self._ordered, self._waits) if text is None else text)

    def environment(self) -> dict[str, str]:
        """Give the variables of the tree, and of a clock beside it."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("SIFTBELL_")}
        broker = f"siftbell-sqlite:///{self.queue_disk.place}/queue.db"
        if self.broker and self.broker_proxy:
            broker = self.broker.url(self.broker_proxy.port)
        store = f"sqlite:///{self.store_file}"
        if self.store and self.store_proxy:
            store = self.store.url(self.store_proxy.port)
        return own | {
            "SIFTBELL_BROKER": broker,
            "SIFTBELL_STORE": store,
            "SIFTBELL_CONFIG": str(self.config),
            "SIFTBELL_DATA": str(self.place / "data"),
            "SIFTBELL_PORT": str(self._port),
            "SIFTBELL_LOG_FORMAT": "json",
            "SIFTBELL_PRIVATE_NETWORKS": "127.0.0.1",
        }

    @property
    def store_file(self) -> Path:
        """The store's file, where it is one."""
        return self.store_disk.place / "store.db"

    @property
    def queue_file(self) -> Path:
        """The embedded queue's file."""
        return self.queue_disk.place / "queue.db"

    # The tree

    @property
    def supervisor(self) -> int:
        """The process of `siftbell run`; 0 while there is none."""
        process = self.tree and self.tree._process  # `process` asserts that there is one
        return process.pid if process and process.poll() is None else 0

    def parts(self) -> dict[str, int]:
        """Give the parts that run, with their processes."""
        return leaders(self.supervisor) if self.supervisor else {}

    def children(self, part: str) -> list[int]:
        """Give the processes that a part has started."""
        return children(self.supervisor, part) if self.supervisor else []

    def launch_tree(self) -> None:
        """Start the tree, and do not wait until it is ready; nothing where it runs."""
        with self._starting:
            if not self.supervisor:
                self._launch_tree()

    def _launch_tree(self) -> None:
        if self.tree is not None:
            code = self.tree._process.poll() if self.tree._process else None
            self.tree._close()
            if code not in {None, -signal.SIGKILL}:
                self.notes.append(f"the tree had ended by itself with exit code {code}")
        self.tree = Tree(self.log, self.environment(), directory=self.place)
        self._started = self._starter.submit(self.tree.__enter__)
        until(lambda: self.supervisor or (self._started and self._started.done()), "the tree is started")

    def kill_tree(self, *, everything: bool) -> None:
        """Kill the supervisor, or all of its processes at once, and see that none is left."""
        supervisor = self.supervisor
        if not supervisor:
            return
        family = descendants(supervisor)
        send(family if everything else [supervisor], signal.SIGKILL)
        until(lambda: gone(family), "nothing outlives its supervisor")

    def await_ready(self, within: float = 90) -> None:
        """Wait until all parts of the tree run, starting it again where it has ended."""

        def ready() -> bool:
            if not self.supervisor:
                self.launch_tree()
            return self.parts().keys() >= PARTS and bool(self.children("filters"))

        try:
            until(ready, "the tree runs", within)
        except TooLateError as error:
            raise TooLateError(f"{error}\n{self.tail()}") from None
        if self._started is not None:
            try:
                self._started.result(within)
            except Failure as error:
                raise TooLateError(str(error)) from None

    def heal(self) -> None:
        """Undo every trouble there may be, so that what is outstanding can arrive."""
        for disk in (self.store_disk, self.queue_disk):
            disk.clear()
        for proxy in (self.broker_proxy, self.store_proxy):
            if proxy:
                proxy.become("none")
        for sink in self.sinks.values():
            sink.become("takes")
        for server in self.servers:
            server.thaw()
            server.start()
        self.write_config()
        self.await_ready()

    # What it knows

    def dead_letters(self) -> list[tuple[str, str]]:
        """Give id and step of every dead letter, past the proxy."""
        with self._reading() as connection:
            return [(row[0], row[1]) for row in connection.execute(select(dead_letters.c.message_id, dead_letters.c.step))]

    def trace(self, ids: Iterable[str]) -> str:
        """Tell what the store knows of messages, for a person who looks for them."""
        lines = []
        with self._reading() as connection:
            for message in ids:
                found = connection.execute(select(records).where(records.c.message_id == message)).mappings()
                lines += [
                    f"{message} record: {row['step']} {row['outcome']} attempt {row['attempt']} {row['reason']}" for row in found
                ]
                waiting = connection.execute(select(held).where(held.c.message_id == message)).mappings()
                lines += [f"{message} held: {row['step']} {row['why']} due {row['due']} owner {row['owner']}" for row in waiting]
        return "\n".join(lines) or "the store knows nothing of them"

    def tail(self, lines: int = 25) -> str:
        """Give the end of what the tree logged, a short line for each entry."""
        if not self.log.exists():
            return ""
        return "\n".join(_short(line) for line in self.log.read_text(errors="replace").splitlines()[-lines:])

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        database = Database(self.store.url(self.store.port) if self.store else f"sqlite:///{self.store_file}")
        try:
            with database.reading() as connection:
                yield connection
        finally:
            database.close()

    async def _follow(self) -> None:
        """Read what the file consumer writes; a kill may have cut a line short, which is then no delivery."""
        path, read = self.place / FILE, 0
        while True:
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(read)
                whole, end, _ = file.read().rpartition(b"\n")
                read += len(whole + end)
                for line in whole.splitlines():
                    with suppress(ValueError):
                        arrival = DECODER.decode(line)
                        if self._ledger is not None:
                            self._ledger.arrive("archive", arrival.id, arrival.key, arrival.number)
            await asyncio.sleep(_LOOK)

    def _close(self) -> None:
        for server in self.servers:
            server.thaw()
        with suppress(AssertionError):
            self.kill_tree(everything=True)
        if self.tree is not None and self.tree._process is not None:
            self.tree._close()
        self._starter.shutdown(wait=True)
        for server in self.servers:
            with suppress(AssertionError):
                server.kill()
        for listening in (*self.sinks.values(), self.broker_proxy, self.store_proxy):
            if listening is not None:
                listening.close()
        self.background.close()
        for disk in (self.store_disk, self.queue_disk):
            disk.close()


def _short(line: str) -> str:
    """Give time, part, event and the last line of an exception."""
    with suppress(ValueError):
        entry = json.loads(line)
        words = [entry.get("timestamp", "")[11:23], entry.get("part", ""), entry.get("level", ""), entry.get("event", "")]
        words += [f"{name}={value}" for name, value in entry.items() if name not in _SHOWN]
        words += str(entry.get("exception", "")).strip().splitlines()[-1:]
        line = " ".join(str(word) for word in words)
    return line[:_WIDTH]
