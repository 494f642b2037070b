"""Memory: a Siftbell worker, and the whole tree of `siftbell run`, against a bare Celery worker; idle, and while they work.

Memory is PSS: of each page a process has its share, so that the sum over the processes is what they take together. A
command of its own is counted with all its processes, from /proc/PID/smaps_rollup. Under load: the most that was seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import urlsplit

from harness.processes import descendants

from benchmarks.measure import Figures, Measure, Target
from benchmarks.siftbell import PIPELINE, Filler, pipeline_file
from benchmarks.work import body
from benchmarks.workplace import REPOSITORY, Lines, Program, python, until

MESSAGES: Final = 20_000
CHAINS: Final = 600
ARRAY: Final = 100
"""Alerts of one request."""
STEADY: Final = 3.0
"""Seconds for which an idle program must not have changed by a hundredth."""
LOOK: Final = 0.2
CORES: Final = os.cpu_count() or 1
TREE: Final = 2 + 3 + 1 + CORES
"""Processes of a tree: the supervisor and its fork server; web, clock and deliveries; who filters, and a process a core."""


class Memory(Measure):
    """All workers have one process a core and Redis as the broker, the tree its defaults: the embedded SQLite files.

    The workers' load is a full queue, the tree's are posts to its intake.
    """

    name = "memory"
    guarded = True
    targets: ClassVar = {
        name: Target(
            measure=f"bytes of {whose}, {when}",
            yardstick=f"a bare Celery worker, {when}",
            at_least=1 / 1.6,
            aim=1 / 1.3,
            kind="cost",
        )
        for name, whose, when in (
            ("worker-idle", "`siftbell worker`", "idle"),
            ("worker-load", "`siftbell worker`", "under load"),
            ("tree-idle", "the whole `siftbell run` tree", "idle"),
            ("tree-load", "the whole `siftbell run` tree", "under load"),
        )
    }

    def prepare(self, closing: ExitStack) -> None:
        """Start Redis."""
        server = self.place.server("redis")
        closing.callback(self.place.stop, "redis")
        self._redis = server.url(server.port)

    def siftbell(self) -> Figures:
        """Give the bytes of a worker, and of a tree."""
        return self._worker() | self._tree()

    def _worker(self) -> dict[str, float]:
        place = self.place.new("memory-worker")
        configs = place / "configs"
        configs.mkdir()
        environment = {"SIFTBELL_BROKER": self._redis, "SIFTBELL_CONFIG": str(configs), "SIFTBELL_DATA": str(place / "data")}
        delivered = Lines(place / "delivered")
        (place / "configs" / "bench.yaml").write_text(_pipeline(place))
        count = int(MESSAGES * self.scale)
        with Program(python("pipeline.cli", "worker"), place, environment) as worker:
            idle = _idle(worker.pid, 1 + CORES)
            with Filler(place, environment) as filler:
                filler.publish(filler.batches(count))
            load = _most(worker.pid, lambda: delivered.count() >= count, "the worker has delivered all")
        return {"worker-idle": idle, "worker-load": load}

    def _tree(self) -> dict[str, float]:
        place = self.place.new("memory-tree")
        delivered = Lines(place / "delivered")
        count = int(MESSAGES * self.scale)
        with self.place.tree(place, _pipeline(place)) as tree:
            idle = _idle(tree.process.pid, TREE)
            posts = iter(range(0, count, ARRAY))
            connection = HTTPConnection(urlsplit(tree.ready["url"]).netloc, timeout=60)
            headers = {"Authorization": f"Bearer {tree.ready['key']}", "Content-Type": "application/json"}

            def done() -> bool:
                for first in posts:
                    connection.request("POST", f"/in/{PIPELINE}/http", body(range(first, first + ARRAY)), headers)
                    answer = connection.getresponse()
                    if answer.status != 202:
                        raise RuntimeError(f"not accepted: {answer.read().decode(errors='replace')}")
                    answer.read()
                    if first % (10 * ARRAY) == 0:
                        return False
                return delivered.count() >= count

            load = _most(tree.process.pid, done, "the tree has delivered all")
            connection.close()
        return {"tree-idle": idle, "tree-load": load}

    def yardstick(self) -> Figures:
        """Give the bytes of a bare Celery worker: the chain's, which has the three filters and the delivery as its tasks."""
        place = self.place.new("memory-celery")
        environment = {"CHAIN_BROKER": self._redis, "CHAIN_FILE": str(place / "delivered")}
        delivered = Lines(place / "delivered")
        count = int(CHAINS * self.scale)
        command = python("celery", "-A", "benchmarks.yardsticks.chain", "worker", "-c", str(CORES))
        with Program(command, place, environment) as worker:
            idle = _idle(worker.pid, 1 + CORES)
            fill = python("benchmarks.yardsticks.fill", "0", str(count))
            with subprocess.Popen(fill, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}, cwd=place):
                load = _most(worker.pid, lambda: delivered.count() >= count, "the chain is worked off")
        return {"worker-idle": idle, "worker-load": load, "tree-idle": idle, "tree-load": load}


def memory(pid: int) -> float:
    """Give the bytes that a process and its descendants take together."""
    taken = 0
    for one in descendants(pid):
        with suppress(OSError):  # it has ended meanwhile
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            taken += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return taken * 1024.0


def _pipeline(place: Path) -> str:
    return pipeline_file(f"file: {{path: {json.dumps(str(place / 'delivered'))}}}")


def _idle(pid: int, processes: int) -> float:
    """Give what a program takes once all its processes are there and it takes no more."""
    until(lambda: len(descendants(pid)) >= processes, f"there are {processes} processes")
    seen: list[float] = []

    def steady() -> bool:
        seen.append(memory(pid))
        lately = seen[-int(STEADY / LOOK) :]
        return len(seen) > len(lately) and max(lately) - min(lately) < max(lately) / 100

    until(steady, "it is steady", look=LOOK)
    return seen[-1]


def _most(pid: int, done: Callable[[], bool], what: str) -> float:
    """Give the most that a program takes until something is done; where that was at once, what it took for it."""
    most = memory(pid)
    end = time.monotonic() + 300
    while not done():
        most = max(most, memory(pid))
        if time.monotonic() > end:
            raise TimeoutError(f"not within 300 s: {what}")
        time.sleep(LOOK)
    return most
