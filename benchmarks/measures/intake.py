"""Durable intake: requests that are answered 202 once the broker has confirmed them, by one web process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, Final

from harness.servers import free_port
from redis import Redis

from benchmarks.measure import Figures, Measure, Target
from benchmarks.siftbell import PIPELINE, pipeline_file
from benchmarks.work import alert
from benchmarks.workplace import Program, Workplace, python, until, until_listens
from benchmarks.wrk import drive, template

SECONDS: Final = 1.0
"""How long a turn lasts."""
WARM_UP: Final = 1.0
MANY: Final = 100
"""Alerts in each request of the bulk measure."""
_SPARE: Final = 10**7
"""Numbers left for each load: no two alerts of a server have the same."""


class Web:
    """A web server that takes alerts: its address, the headers it wants, and its process."""

    def __init__(self, place: Path, url: str, headers: Mapping[str, str], program: Program) -> None:
        self.place, self.url, self.headers, self.program = place, url, headers, program
        self._first = 0

    def take(self, seconds: float, *, many: int = 0) -> float:
        """Give the requests a second that it accepts within so many seconds; with `many` each is an array of so many alerts."""
        load = drive(self.place, self.url, template(alert), seconds=seconds, headers=self.headers, many=many, first=self._first)
        self._first += _SPARE
        return load.whole().rate


@contextmanager
def serving(place: Path, environment: Mapping[str, str]) -> Iterator[Web]:
    """Run `siftbell serve` alone, and warm it up: what it accepts stays on the queue."""
    (place / "bench.yaml").write_text(pipeline_file("log"))
    port, key = free_port(), place / "data" / "api-key"
    told = {"SIFTBELL_CONFIG": str(place / "bench.yaml"), "SIFTBELL_DATA": str(place / "data"), "SIFTBELL_PORT": str(port)}
    told |= {"SIFTBELL_KEY_FILE": str(key), **environment}
    with Program(python("pipeline.cli", "serve"), place, told) as program:
        until_listens(port, "the web server")
        headers = {"X-API-Key": until(key.read_text, "there is a key").strip()}
        web = Web(place, f"http://127.0.0.1:{port}/in/{PIPELINE}/http", headers, program)
        web.take(WARM_UP)
        yield web


@contextmanager
def bare(place: Path) -> Iterator[Web]:
    """Run the same server doing nothing; it is sent the same requests."""
    port = free_port()
    with Program(python("benchmarks.yardsticks.bare_web", str(port)), place) as program:
        until_listens(port, "the bare web server")
        web = Web(place, f"http://127.0.0.1:{port}/in/{PIPELINE}/http", {"X-API-Key": f"sb_{'x' * 49}"}, program)
        web.take(WARM_UP)
        yield web


class Intake(Measure):
    """One web process and the broker, and nobody who takes anything off the queue; the servers are new in each round."""

    broker: ClassVar[str]
    turns = 4

    def prepare(self, closing: ExitStack) -> None:
        """Start the broker."""
        if self.broker != "sqlite":
            self.place.server(self.broker)
            closing.callback(self.place.stop, self.broker)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Run both servers, the broker empty."""
        environment = broker_of(self.place, self.broker)
        with (
            serving(self.place.new(f"{self.name}-siftbell"), environment) as self._web,
            bare(self.place.new(f"{self.name}-bare")) as self._bare,
        ):
            yield

    def siftbell(self) -> Figures:
        """Give requests a second that are accepted, one alert each."""
        return {self.name: self._web.take(SECONDS)}

    def yardstick(self) -> Figures:
        """Give the same of the bare server."""
        return {self.name: self._bare.take(SECONDS)}


def broker_of(place: Workplace, kind: str) -> dict[str, str]:
    """Give the setting for a broker, emptied."""
    if kind == "sqlite":
        return {}
    server = place.server(kind)
    url = server.url(server.port)
    with Redis.from_url(url) as redis:
        redis.flushall()
    return {"SIFTBELL_BROKER": url}


def _singly(broker: str) -> Target:
    return Target(
        measure=f"durable intake: requests/s answered 202 after the broker's confirm, one web process, {broker}",
        yardstick="the same server answering 202 and doing nothing",
        at_least=0.4,
        aim=0.6,
    )


class IntakeRedis(Intake):
    """On Redis."""

    name = "intake-redis"
    broker = "redis"
    guarded = True
    targets: ClassVar = {"intake-redis": _singly("Redis")}


class IntakeSqlite(Intake):
    """On the embedded file, fsynced."""

    name = "intake-sqlite"
    broker = "sqlite"
    extra = True
    targets: ClassVar = {"intake-sqlite": _singly("embedded file, fsynced")}


class Bulk(Intake):
    """Alerts in arrays of a hundred, against one alert a request; both are sent to the same Siftbell."""

    @contextmanager
    def round(self) -> Iterator[None]:
        """Run the server, the broker empty."""
        with serving(self.place.new(f"{self.name}-siftbell"), broker_of(self.place, self.broker)) as self._web:
            self._web.take(WARM_UP, many=MANY)
            yield

    def siftbell(self) -> Figures:
        """Give alerts a second in arrays."""
        return {self.name: self._web.take(SECONDS, many=MANY) * MANY}

    def yardstick(self) -> Figures:
        """Give alerts a second, one a request."""
        return {self.name: self._web.take(SECONDS)}


def _in_bulk(broker: str) -> Target:
    return Target(
        measure=f"durable intake in bulk: alerts/s in arrays of 100, one web process, {broker}",
        yardstick="the same, one alert per request",
        at_least=10,
        aim=20,
    )


class BulkRedis(Bulk):
    """On Redis."""

    name = "bulk-redis"
    broker = "redis"
    targets: ClassVar = {"bulk-redis": _in_bulk("Redis")}


class BulkSqlite(Bulk):
    """On the embedded file, fsynced."""

    name = "bulk-sqlite"
    broker = "sqlite"
    extra = True
    targets: ClassVar = {"bulk-sqlite": _in_bulk("embedded file, fsynced")}
