"""What a message costs where ten times as much is there: pipelines, held messages, records."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import ClassVar, Final

from harness.processes import descendants
from harness.servers import Server

from benchmarks import stores
from benchmarks.measure import Figures, Measure, Target
from benchmarks.siftbell import as_message, pipeline_file, settings
from benchmarks.workplace import Lines, Workplace, until
from pipeline.engine.pipeline import Pipelines
from pipeline.engine.routes import incoming
from pipeline.message import new_id
from pipeline.queue.publishing import CeleryQueue
from pipeline.spec.loader import load
from pipeline.store import Held, Outcome, Record, Store, Why

AT_LEAST: Final = 1 / 1.2
AIM: Final = 1 / 1.05
FEW, MANY = 100, 1_000
MESSAGES: Final = 20_000
WARM_UP: Final = 2_000
BATCH: Final = 100
AT_ONCE: Final = 2_000
"""Held messages that a clock claims in one go."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Scaled(Measure):
    """Ten times as much beside a tenth of it, and the processor's time for a message of each."""

    @abstractmethod
    def cost(self, *, much: bool) -> Figures:
        """Give the processor's seconds for a message."""

    def siftbell(self) -> Figures:
        """Give what a message costs where there is ten times as much."""
        return self.cost(much=True)

    def yardstick(self) -> Figures:
        """Give what it costs where there is not."""
        return self.cost(much=False)


class Installation:
    """A tree with pipelines, each with a consumer on a queue of its own; all traffic goes to the first hundred of them.

    What it costs is the processor's time of all its processes and of its broker.
    """

    def __init__(self, workplace: Workplace, count: int, broker: Server | None, closing: ExitStack) -> None:
        place = workplace.new(f"scale-{count}")
        self._broker = broker
        self._delivered = Lines(place / "delivered")
        self._expected = 0
        environment = {"SIFTBELL_BROKER": _database(broker, 1 if count > FEW else 0)} if broker else {}
        configs = place / "configs"
        configs.mkdir()
        files = [configs / f"team-{number:04d}.yaml" for number in range(count)]
        texts = [pipeline_file(f"{{file: {place / 'delivered'}, as: {file.stem}}}", name=file.stem) for file in files]
        for file, text in zip(files[1:], texts[1:], strict=True):
            file.write_text(text)
        self._tree = closing.enter_context(workplace.tree(place, texts[0], environment))
        self._pipelines = Pipelines(load([configs / "bench.yaml", *files[1:FEW]]))
        self._queue = CeleryQueue.from_settings(settings(place, environment))
        closing.callback(self._queue.close)

    def cost(self, count: int) -> float:
        """Give the processor's seconds for each of so many messages."""
        before = self._spent()
        self.drain(count)
        return (self._spent() - before) / count

    def drain(self, count: int) -> None:
        """Put so many messages on the queue, and wait until they are delivered."""
        batches = []
        for pipeline in self._pipelines:
            batches += incoming(pipeline, [as_message(number) for number in range(count // FEW)])
        self._queue.publish(batches)
        self._expected += count
        until(lambda: self._delivered.count() >= self._expected, "all is delivered")
        time.sleep(0.2)  # what is delivered is still to be acknowledged

    def _spent(self) -> float:
        pids = descendants(self._tree.process.pid) + (self._broker.pids if self._broker else [])
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(field[11]) + int(field[12]) for field in fields) / _TICKS


class ManyPipelines(Scaled):
    """Both trees run all the time, each on its own part of the broker, and one of them has something to do."""

    broker: ClassVar[str]

    def prepare(self, closing: ExitStack) -> None:
        """Start the broker and both trees, and have each pipeline's plugins made in each process."""
        broker = self.place.server(self.broker) if self.broker else None
        closing.callback(self.place.stop, self.broker)
        self._much = Installation(self.place, MANY, broker, closing)
        self._little = Installation(self.place, FEW, broker, closing)
        for installation in (self._much, self._little):
            installation.drain(WARM_UP)

    def cost(self, *, much: bool) -> Figures:
        """Give the seconds for a message of the same traffic."""
        installation = self._much if much else self._little
        return {"message": installation.cost(int(MESSAGES * self.scale) // FEW * FEW)}


def _target(broker: str) -> Target:
    return Target(
        measure=f"processor seconds a message, {MANY:,} pipelines with a queue each, {broker}; the traffic goes to {FEW}",
        yardstick=f"the same traffic, and only those {FEW} are there",
        at_least=AT_LEAST,
        aim=AIM,
        kind="cost",
    )


class PipelinesRedis(ManyPipelines):
    """On Redis."""

    name = "scale-pipelines-redis"
    broker = "redis"
    targets: ClassVar = {"message": _target("Redis")}


class PipelinesSqlite(ManyPipelines):
    """On the embedded file."""

    name = "scale-pipelines-sqlite"
    broker = ""
    extra = True
    targets: ClassVar = {"message": _target("embedded SQLite file")}


class Stored(Scaled):
    """The store's statements for a message, in batches as a worker and a clock write them, on two SQLite stores."""

    rows: ClassVar[tuple[int, int]]
    """How much there is: of a tenth, and of ten times that."""
    messages: ClassVar[int] = 10_000

    @abstractmethod
    def make(self, path: Path, count: int) -> Store:
        """Make a store with so much in it."""

    @abstractmethod
    def pass_through(self, store: Store, size: int, count: int) -> None:
        """Have so many new messages come and old ones go; the store has as much in it after that."""

    def prepare(self, closing: ExitStack) -> None:
        """Fill both stores."""
        place = self.place.new(self.name)
        self._stores = [self.make(place / f"{count}.db", count) for count in self.rows]
        for store, size in zip(self._stores, self.rows, strict=True):
            closing.callback(store.close)
            self.pass_through(store, size, WARM_UP)

    def cost(self, *, much: bool) -> Figures:
        """Give the seconds of this process, which nothing else uses."""
        count = int(self.messages * self.scale) // AT_ONCE * AT_ONCE
        began = time.process_time()
        self.pass_through(self._stores[much], self.rows[much], count)
        return {"message": (time.process_time() - began) / count}


class HeldMessages(Stored):
    """Each message is held, becomes due among all the others, is fetched and let go."""

    name = "scale-held"
    rows = (100_000, 1_000_000)
    targets: ClassVar = {
        "message": Target(
            measure=f"processor seconds of the store to hold a message and fetch it, {rows[1]:,} held",
            yardstick=f"the same, {rows[0]:,} held",
            at_least=AT_LEAST,
            aim=AIM,
            kind="cost",
        )
    }
    make = staticmethod(stores.with_held)

    def pass_through(self, store: Store, size: int, count: int) -> None:
        """Hold new ones, due at some time between the first and the last; fetch as many, the earliest."""
        random = Random(size)  # noqa: S311 - spreads them, guards nothing
        for first in range(0, count, BATCH):
            pipeline, step = random.choice(stores.PLACES)
            due = [stores.FIRST + timedelta(milliseconds=random.randrange(size)) for _ in range(BATCH)]
            messages = [as_message(first + number) for number in range(BATCH)]
            store.settle(
                held=[
                    Held(message=message, pipeline=pipeline, step=step, why=Why.RETRY, due=at, attempt=2)
                    for message, at in zip(messages, due, strict=True)
                ]
            )
        for _ in range(count // AT_ONCE):
            claims = store.claim_due(stores.end(size), owner="clock", lease=timedelta(seconds=10), limit=AT_ONCE)
            assert len(claims) == AT_ONCE
            store.release(claims)


class Records(Stored):
    """Each message's record is looked for before it is delivered, and written; the oldest are forgotten."""

    name = "scale-records"
    rows = (1_000_000, 10_000_000)
    targets: ClassVar = {
        "message": Target(
            measure=f"processor seconds of the store for a delivery's record, {rows[1]:,} records",
            yardstick=f"the same, {rows[0]:,} records",
            at_least=AT_LEAST,
            aim=AIM,
            kind="cost",
        )
    }
    make = staticmethod(stores.with_records)

    def pass_through(self, store: Store, size: int, count: int) -> None:
        """Read and write the records of new ones, and delete as many old ones."""
        random = Random(size)  # noqa: S311 - spreads them, guards nothing
        end = stores.end(size)
        for _ in range(count // BATCH):
            pipeline, step = random.choice(stores.PLACES)
            ids = [new_id() for _ in range(BATCH)]
            assert not store.records(pipeline, step, ids)
            store.settle(records=_delivered(pipeline, step, ids))
        for _ in range(count // AT_ONCE):
            assert store.purge(end, AT_ONCE) == AT_ONCE


def _delivered(pipeline: str, step: str, ids: Sequence[str]) -> list[Record]:
    at = stores.FIRST + timedelta(days=365)
    return [Record(message_id=one, pipeline=pipeline, step=step, outcome=Outcome.DELIVERED, at=at) for one in ids]


def _database(server: Server, number: int) -> str:
    return f"{server.url(server.port).removesuffix('/0')}/{number}"
