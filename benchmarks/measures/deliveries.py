"""Deliveries to a sink that takes its time: one worker with its defaults, against one request at a time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import ClassVar, Final
from urllib.parse import urlsplit

from benchmarks.delivering import filled
from benchmarks.measure import Figures, Measure, Target
from benchmarks.sink import sink
from benchmarks.work import body

WAIT: Final = 0.02
MESSAGES: Final = 10_000
WARM_UP: Final = 2_000
REQUESTS: Final = 250
WARM_UP_REQUESTS: Final = 20


class Deliveries(Measure):
    """Siftbell: what is on the queue is delivered, recorded and acknowledged by one process. The loop posts, and nothing else."""

    name = "deliveries"
    targets: ClassVar = {
        "deliveries": Target(
            measure="deliveries/s to a sink that takes 20 ms a request, one worker process",
            yardstick="one request at a time on a connection that stays open",
            at_least=12,
            aim=30,
        )
    }

    def prepare(self, closing: ExitStack) -> None:
        """Start the broker."""
        assert self.place.server("redis").pids
        closing.callback(self.place.stop, "redis")

    def siftbell(self) -> Figures:
        """Give deliveries a second from the first batch on the queue to the last request at the sink."""
        place = self.place.new(f"{self.name}-siftbell")
        count = int(MESSAGES * self.scale)
        with sink(place, wait=WAIT) as service, filled(self.place, place, service) as queue, queue.workers(1):
            queue.fill(WARM_UP)
            service.until(WARM_UP)
            began = time.monotonic()
            queue.fill(count, WARM_UP)
            service.until(WARM_UP + count)
            seconds = service.last - began
        return {"deliveries": count / seconds}

    def yardstick(self) -> Figures:
        """Give requests a second of the plain loop."""
        place = self.place.new(f"{self.name}-loop")
        count = int(REQUESTS * self.scale)
        with sink(place, wait=WAIT) as service:
            connection = HTTPConnection(urlsplit(service.url).netloc)
            for number in range(WARM_UP_REQUESTS):
                _post(connection, number)
            began = time.monotonic()
            for number in range(count):
                _post(connection, WARM_UP_REQUESTS + number)
            seconds = time.monotonic() - began
            connection.close()
        return {"deliveries": count / seconds}


def _post(connection: HTTPConnection, number: int) -> None:
    connection.request("POST", "/", body([number]), {"Content-Type": "application/json"})
    with connection.getresponse() as answer:
        answer.read()
        assert answer.status == 200
