"""The sink as measures use it: a program of its own that takes what is delivered, and what it has counted."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.servers import free_port

from benchmarks.workplace import Program, python, until, until_listens
from benchmarks.yardsticks.sink import COUNTS

QUIET: Final = 1.0
"""Seconds without a request after which no more are expected."""


@dataclass(frozen=True, slots=True)
class Sink:
    """A sink that runs."""

    url: str
    pid: int
    _shared: mmap.mmap

    @property
    def count(self) -> int:
        """How many requests it has taken."""
        return int(COUNTS.unpack_from(self._shared)[0])

    @property
    def open(self) -> int:
        """How many requests wait for their answer."""
        return int(COUNTS.unpack_from(self._shared)[1])

    @property
    def last(self) -> float:
        """When the last one came, by `time.monotonic`."""
        return int(COUNTS.unpack_from(self._shared)[2]) / 1e9

    def until(self, count: int, within: float = 120.0) -> None:
        """Wait until it has taken so many."""
        until(lambda: self.count >= count, f"the sink has {count} requests", within)

    def until_quiet(self, within: float = 120.0) -> None:
        """Wait until no more come."""
        until(lambda: time.monotonic() - self.last > QUIET, "nothing comes any more", within)


@contextmanager
def sink(place: Path, *, wait: float = 0.0) -> Iterator[Sink]:
    """Run a sink that takes so many seconds for each request; ends when left."""
    port = free_port()
    path = place / "requests"
    with Program(python("benchmarks.yardsticks.sink", str(port), f"{wait * 1000:g}", str(path)), place) as program:
        until_listens(port, "the sink")
        with path.open("rb") as file, mmap.mmap(file.fileno(), COUNTS.size, prot=mmap.PROT_READ) as shared:
            yield Sink(f"http://127.0.0.1:{port}/", program.pid, shared)
