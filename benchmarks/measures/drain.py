"""A full queue is worked off: Siftbell against a plain Celery chain of four tasks, on each broker."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.measure import Figures, Measure, Target
from benchmarks.siftbell import Filler, pipeline_file
from benchmarks.workplace import REPOSITORY, Lines, Program, python, until

MESSAGES: Final = 30_000
CHAINS: Final = 500
WARM_UP: Final = 2_000
WARM_UP_CHAINS: Final = 50


class Drain(Measure):
    """Both sides have a full queue put before them at once, and are timed until the last line is in the file.

    Siftbell: `siftbell run` with its defaults; filters and delivery are tasks of their own, records and confirms are on. The
    chain: a worker with its defaults, one process a core; it is stopped while its queue is filled, as that takes long.
    """

    broker: ClassVar[str]
    chain_broker: ClassVar[str]

    def prepare(self, closing: ExitStack) -> None:
        """Start the brokers."""
        for kind in {self.broker, self.chain_broker} - {"sqlite"}:
            server = self.place.server(kind)
            closing.callback(self.place.stop, kind)
            assert server.pids

    def siftbell(self) -> Figures:
        """Give messages a second from the first batch on the queue to the last line in the file."""
        place = self.place.new(f"{self.name}-siftbell")
        delivered = Lines(place / "delivered")
        environment = {} if self.broker == "sqlite" else {"SIFTBELL_BROKER": self._url(self.broker)}
        count = int(MESSAGES * self.scale)
        config = pipeline_file(f"file: {{path: '{place / 'delivered'}'}}")
        with self.place.tree(place, config, environment), Filler(place, environment) as filler:
            warm_up = filler.batches(WARM_UP)
            batches = filler.batches(count)
            filler.publish(warm_up)
            until(lambda: delivered.count() >= WARM_UP, "Siftbell is warm")
            began = time.perf_counter()
            filler.publish(batches)
            until(lambda: delivered.count() >= WARM_UP + count, "Siftbell has delivered all")
            seconds = time.perf_counter() - began
        return {"messages": count / seconds}

    def yardstick(self) -> Figures:
        """Give the same of the chain."""
        place = self.place.new(f"{self.name}-chain")
        environment = {"CHAIN_BROKER": self._url(self.chain_broker), "CHAIN_FILE": str(place / "delivered")}
        delivered = Lines(place / "delivered")
        count = int(CHAINS * self.scale)
        command = python("celery", "-A", "benchmarks.yardsticks.chain", "worker", "-c", str(os.cpu_count() or 1))
        with Program(command, place, environment) as worker:
            self._fill(place, environment, 0, WARM_UP_CHAINS)
            until(lambda: delivered.count() >= WARM_UP_CHAINS, "the chain is warm")
            worker.send(signal.SIGSTOP)
            self._fill(place, environment, WARM_UP_CHAINS, count)
            began = time.perf_counter()
            worker.send(signal.SIGCONT)
            until(lambda: delivered.count() >= WARM_UP_CHAINS + count, "the chain is worked off")
            seconds = time.perf_counter() - began
        return {"messages": count / seconds}

    def _url(self, kind: str) -> str:
        server = self.place.server(kind)
        return server.url(server.port)

    def _fill(self, place: Path, environment: dict[str, str], first: int, count: int) -> None:
        subprocess.run(
            python("benchmarks.yardsticks.fill", str(first), str(count)),
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
            cwd=place,
            check=True,
            timeout=120,
        )


def _target(broker: str, chain: str) -> Target:
    return Target(
        measure=f"messages/s through three filters and a delivery of its own, {broker}",
        yardstick=f"a Celery chain of four tasks on {chain}",
        at_least=40,
        aim=80,
    )


class DrainRedis(Drain):
    """Both on Redis."""

    name = "drain-redis"
    broker = chain_broker = "redis"
    guarded = True
    targets: ClassVar = {"messages": _target("Redis", "Redis")}


class DrainRabbitMQ(Drain):
    """Both on RabbitMQ: quorum queues and confirms."""

    name = "drain-rabbitmq"
    broker = chain_broker = "rabbitmq"
    targets: ClassVar = {"messages": _target("RabbitMQ with quorum queues and confirms", "RabbitMQ, the same")}


class DrainSqlite(Drain):
    """Siftbell on its embedded file, fsynced; the chain on Redis."""

    name = "drain-sqlite"
    broker, chain_broker = "sqlite", "redis"
    targets: ClassVar = {"messages": _target("embedded SQLite file, fsynced", "Redis")}
