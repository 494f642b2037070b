"""The filter stage of a worker: against the same filters in a plain loop, with no queue at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final

from redis import Redis

from benchmarks.measure import Figures, Measure, Target
from benchmarks.siftbell import Filler, pipeline_file
from benchmarks.workplace import REPOSITORY, Program, python, until

MESSAGES: Final = 40_000
WARM_UP: Final = 4_000


class Filtering(Measure):
    """What one process that filters gets done in a second, and what the filters alone would get done in it.

    Siftbell: `siftbell worker --only filters --concurrency 1`, with its defaults, on Redis. Its queue is filled while it
    stands still; it is timed from the moment it goes on until the last batch is acknowledged. For each batch it takes the
    task from the broker, reads it, filters, checks and names what the filters gave, puts the batches of deliveries on the
    queue and waits until Redis has them. Nobody takes them from there: beside the process that filters, only its parent and
    Redis run, and they have the other core. Redis rather than the embedded file: that one's fsyncs are the disk's time.

    The loop: the same plugins, made from the same pipeline file, over the same messages in memory, in a process of its own.

    The figure is by the wall clock. By the processor's time of the process that filters it would be higher, but that leaves
    out what this process waits for, its parent's turn and Redis's answer, and nobody filters on its core meanwhile. Both are
    told on stderr, and what the parent takes.
    """

    name = "filtering"
    turns = 2
    guarded = True
    targets: ClassVar = {
        "messages": Target(
            measure="messages/s per worker core in the filter stage",
            yardstick="the three filters called in a plain loop, no queue at all",
            at_least=0.5,
            aim=0.7,
        )
    }

    def prepare(self, closing: ExitStack) -> None:
        """Start Redis."""
        server = self.place.server("redis")
        closing.callback(self.place.stop, "redis")
        self._url = server.url(server.port)

    def siftbell(self) -> Figures:
        """Give messages a second from a full queue to the last acknowledgement."""
        place, environment = self._set_up("siftbell")
        count = int(MESSAGES * self.scale)
        worker = [sys.executable, "-m", "pipeline.cli", "worker", "--only", "filters", "--concurrency", "1"]
        with (
            Program(worker, place, environment) as program,
            Filler(place, environment) as filler,
            Redis.from_url(self._url) as redis,
        ):
            batches = filler.batches(count)
            filler.publish(filler.batches(WARM_UP))
            until(lambda: _onward(redis) and _done(redis), "the worker is warm")
            program.send(signal.SIGSTOP)
            filler.publish(batches)
            redis.delete("siftbell:out.file")
            cpu = _cpu(program.pids)
            began = time.perf_counter()
            program.send(signal.SIGCONT)
            until(lambda: _done(redis), "the queue is worked off", look=0.005)
            seconds = time.perf_counter() - began
            spent = {pid: after - cpu[pid] for pid, after in _cpu(program.pids).items()}
        parent, child = spent.values()
        self._tell("siftbell", count, seconds, child, f", and {parent / count * 1e6:.1f} of the worker's parent")
        return {"messages": count / seconds}

    def yardstick(self) -> Figures:
        """Give the same of the loop."""
        place, environment = self._set_up("loop")
        count = int(MESSAGES * self.scale)
        done = subprocess.run(
            python("benchmarks.yardsticks.loop", str(count)),
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/faults'}", **environment},
            cwd=place,
            check=True,
            timeout=120,
            capture_output=True,
        )
        taken = json.loads(done.stdout)
        self._tell("loop", count, taken["seconds"], taken["cpu"])
        return {"messages": count / taken["seconds"]}

    def _set_up(self, side: str) -> tuple[Path, Mapping[str, str]]:
        place = self.place.new(f"{self.name}-{side}")
        (place / "configs").mkdir()
        (place / "configs" / "bench.yaml").write_text(pipeline_file(f"file: {{path: '{place / 'delivered'}'}}"))
        settings = {"SIFTBELL_CONFIG": str(place / "configs"), "SIFTBELL_DATA": str(place / "data"), "SIFTBELL_BROKER": self._url}
        return place, settings

    @staticmethod
    def _tell(side: str, count: int, seconds: float, cpu: float, more: str = "") -> None:
        told = f"   {side}: {count / seconds:,.0f} messages/s; {cpu / count * 1e6:.1f} us of the processor a message{more}"
        print(told, file=sys.stderr, flush=True)


def _onward(redis: Any) -> bool:
    return bool(redis.llen("siftbell:out.file"))


def _done(redis: Any) -> bool:
    """Say whether nothing is left to filter: nothing on the queue, nothing claimed."""
    with redis.pipeline() as both:
        return not any(both.llen("siftbell:in").keys("siftbell:queue:claims:*").execute())


def _cpu(pids: list[int]) -> dict[int, float]:
    """Give the seconds of the processor that processes have used by now, to the nanosecond: the kernel's ticks are 10 ms."""
    return {
        pid: sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9 for pid in pids
    }
