"""A flood: 64 clients post one alert after the other, more than can be worked off, and what counts is how many are delivered."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final
from urllib.request import Request, urlopen

from harness.servers import free_port
from redis import Redis

from benchmarks.measure import Figures, Measure, Target
from benchmarks.siftbell import PIPELINE, pipeline_file
from benchmarks.work import alert, body
from benchmarks.workplace import Lines, Program, python, until, until_listens
from benchmarks.wrk import drive, template

RISING: Final = 4.0
"""Seconds of the flood in which queues fill; what is delivered then says nothing about a flood."""
SECONDS: Final = 6.0
WARM_UP: Final = 50


class Flood(Measure):
    """Messages delivered a second, while the flood lasts and after it has lasted for a while; what comes later does not count.

    Siftbell: `siftbell run` with its defaults, on Redis. The yardstick: an intake that puts each alert on the queue as a
    chain of four tasks, and a worker with Celery's defaults, one process a core. All its tasks stand in one line, so last
    steps wait behind all first steps that have come before: a window may end with no message delivered at all. Such a
    window counts as one with one message: the ratio is then lower than what was seen.
    """

    name = "flood"
    targets: ClassVar = {
        "delivered": Target(
            measure="messages/s delivered under a flood (64 clients in a closed loop), Redis",
            yardstick="a Celery chain of four tasks behind Starlette",
            at_least=500,
            aim=2500,
        )
    }

    def prepare(self, closing: ExitStack) -> None:
        """Start Redis."""
        self._url = self.place.server("redis").url(self.place.server("redis").port)
        closing.callback(self.place.stop, "redis")

    def siftbell(self) -> Figures:
        """Give the messages a second that Siftbell delivered."""
        place = self.place.new("flood-siftbell")
        config = pipeline_file(f"file: {{path: '{place / 'delivered'}'}}")
        with self.place.tree(place, config, {"SIFTBELL_BROKER": self._url}) as tree:
            url = f"{tree.ready['url']}/in/{PIPELINE}/http"
            figures = self._flooded(place, url, {"Authorization": f"Bearer {tree.ready['key']}"})
        self._forget()
        return figures

    def yardstick(self) -> Figures:
        """Give those that came through the chain."""
        place = self.place.new("flood-chain")
        port = free_port()
        environment = {"CHAIN_BROKER": self._url, "CHAIN_FILE": str(place / "delivered")}
        worker = python("celery", "-A", "benchmarks.yardsticks.chain", "worker", "-c", str(os.cpu_count() or 1))
        web = python("uvicorn", "benchmarks.yardsticks.chain_web:app", "--port", str(port), "--no-access-log")
        with Program(worker, place, environment), Program(web, place, environment):
            until_listens(port, "the chain's intake")
            figures = self._flooded(place, f"http://127.0.0.1:{port}/", {})
        self._forget()
        return figures

    def _flooded(self, place: Path, url: str, headers: dict[str, str]) -> Figures:
        delivered = Lines(place / "delivered")
        for number in range(WARM_UP):
            with urlopen(Request(url, body([number]), headers | {"Content-Type": "application/json"})) as answer:  # noqa: S310 - our own
                assert answer.status == 202
        until(lambda: delivered.count() == WARM_UP, "the warm-up is delivered")
        lasts = RISING + SECONDS * self.scale
        with ThreadPoolExecutor(1) as beside:
            flood = beside.submit(drive, place, url, template(alert), seconds=lasts, headers=headers, first=WARM_UP)
            time.sleep(RISING)
            before, began = delivered.count(), time.perf_counter()
            flood.result().whole()
            seconds = time.perf_counter() - began
            return {"delivered": max(1, delivered.count() - before) / seconds}

    def _forget(self) -> None:
        """Delete what is left of the flood: it is not the next round's."""
        Redis.from_url(self._url).flushall()
