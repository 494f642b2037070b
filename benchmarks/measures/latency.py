"""From the intake to the consumer's call, at half load: against a bare Celery task, publish to start.

Half load is half of the highest rate that the yardstick bears, and both sides get that rate. So both are asked the same question:
how long does an alert take while so many others come? Half of Siftbell's own highest rate is several times as much; a latency
there would be compared with one at a load that the yardstick cannot have. It is measured as well, and told beside the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.measure import Figures, Measure, Target
from benchmarks.moments import LEAD_IN, count, latencies, percentile, throughput
from benchmarks.siftbell import PIPELINE, pipeline_file
from benchmarks.workplace import REPOSITORY, Program, python, until
from pipeline.cli.tree import Tree

SECONDS: Final = 6.0
WARM_UP: Final = 2.0
"""Seconds of a flood before each measurement; also what the highest rate is taken from."""
AT_LEAST: Final = 20.0
"""Messages a second that any machine bears."""


class Latency(Measure):
    """Alerts come independently of one another, at a steady average rate; each side is warmed up by a flood before.

    Siftbell: `siftbell run` with its defaults, three filters, and a consumer that notes the time when it is called. The time
    begins when the request is due, so it holds the request, both ways through the broker and the filters. The task: called
    by a process of its own, worked off by a worker with its defaults; its first line notes the time.
    """

    broker: ClassVar[str]
    bare_broker: ClassVar[str]

    def prepare(self, closing: ExitStack) -> None:
        """Start the brokers, and find out what both sides bear."""
        for kind in {self.broker, self.bare_broker} - {"sqlite"}:
            assert self.place.server(kind).pids
            closing.callback(self.place.stop, kind)
        with self._bare("highest") as bare:
            self._rate = max(AT_LEAST, bare.highest() / 2)
        with self._tree("highest") as tree:
            own = max(AT_LEAST, tree.highest() / 2)
            found = tree.measured(own, SECONDS * self.scale)
        told = f"p50 {found['p50'] * 1e3:.2f} ms, p99 {found['p99'] * 1e3:.2f} ms"
        print(f"   the same rate: {self._rate:.0f}/s; Siftbell at half of its own, {own:.0f}/s: {told}", file=sys.stderr)

    def siftbell(self) -> Figures:
        """Give the seconds that half of the messages, and 99 % of them, do not exceed."""
        with self._tree("siftbell") as tree:
            tree.highest()
            return tree.measured(self._rate, SECONDS * self.scale)

    def yardstick(self) -> Figures:
        """Give the same of the task."""
        with self._bare("bare") as bare:
            bare.highest()
            return bare.measured(self._rate, SECONDS * self.scale)

    @contextmanager
    def _tree(self, name: str) -> Iterator[_Side]:
        place = self.place.new(f"{self.name}-{name}")
        stamps = place / "stamps"
        environment = {"PYTHONPATH": str(REPOSITORY)}
        if self.broker != "sqlite":
            environment["SIFTBELL_BROKER"] = self._url(self.broker)
        config = pipeline_file(f'"benchmarks.moments:Stamp": {{path: "{stamps}"}}')
        with self.place.tree(place, config, environment) as tree:
            yield _Intake(stamps, tree)

    @contextmanager
    def _bare(self, name: str) -> Iterator[_Side]:
        place = self.place.new(f"{self.name}-{name}")
        environment = {"BARE_BROKER": self._url(self.bare_broker), "BARE_FILE": str(place / "stamps")}
        with Program(python("celery", "-A", "benchmarks.yardsticks.bare_task", "worker"), place, environment):
            yield _Bare(place / "stamps", environment)

    def _url(self, kind: str) -> str:
        server = self.place.server(kind)
        return server.url(server.port)


class _Side:
    """One of the two, running: messages are sent at a rate, and the file of moments says when they came."""

    def __init__(self, stamps: Path, environment: Mapping[str, str]) -> None:
        self._stamps = stamps
        self._environment = environment

    def command(self, rate: float, seconds: float) -> list[str]:
        """Give the command that sends, and prints how many it has sent; rate 0 is a flood."""
        raise NotImplementedError

    def highest(self) -> float:
        """Give the messages a second in a flood, without its first second, in which everything is new."""
        self._send(0, WARM_UP / 3)
        first = count(self._stamps)
        self._send(0, WARM_UP)
        return throughput(self._stamps, first)

    def measured(self, rate: float, seconds: float) -> Figures:
        """Give the latencies at a rate."""
        first = count(self._stamps)
        self._send(rate, LEAD_IN / 1e9 + seconds)
        found = latencies(self._stamps, first)
        return {"p50": percentile(found, 0.5), "p99": percentile(found, 0.99)}

    def _send(self, rate: float, seconds: float) -> None:
        """Send, and wait until all have come: nobody takes them twice while nothing fails."""
        before = count(self._stamps)
        done = subprocess.run(
            self.command(rate, seconds),
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self._environment},
            cwd=self._stamps.parent,
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds + 120,
        )
        sent = int(done.stdout)
        until(lambda: count(self._stamps) - before >= sent, f"{sent} messages have come")


class _Intake(_Side):
    def __init__(self, stamps: Path, tree: Tree) -> None:
        super().__init__(stamps, {})
        self._to = (f"{tree.ready['url']}/in/{PIPELINE}/http", tree.ready["key"], str(stamps))

    def command(self, rate: float, seconds: float) -> list[str]:
        return python("benchmarks.posting", *self._to, str(rate), str(seconds))


class _Bare(_Side):
    def command(self, rate: float, seconds: float) -> list[str]:
        return python("benchmarks.yardsticks.bare_task", str(rate), str(seconds))


def _targets(broker: str) -> dict[str, Target]:
    return {
        name: Target(
            measure=f"seconds from intake to consumer at half load, {name}, {broker}",
            yardstick="a bare Celery task, publish to start",
            at_least=0.5,
            aim=0.667,
            kind="cost",
        )
        for name in ("p50", "p99")
    }


class LatencyRedis(Latency):
    """Both on Redis."""

    name = "latency-redis"
    broker = bare_broker = "redis"
    targets: ClassVar = _targets("Redis")


class LatencyRabbitMQ(Latency):
    """Both on RabbitMQ."""

    name = "latency-rabbitmq"
    broker = bare_broker = "rabbitmq"
    targets: ClassVar = _targets("RabbitMQ")


class LatencySqlite(Latency):
    """Siftbell on its embedded file, the task on Redis."""

    name = "latency-sqlite"
    broker, bare_broker = "sqlite", "redis"
    extra = True
    targets: ClassVar = _targets("embedded SQLite file, fsynced (the task on Redis)")
