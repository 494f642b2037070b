"""Workers that only deliver, and a queue full of what they have to deliver: Redis, one webhook, one sink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from redis import Redis

from benchmarks.siftbell import PIPELINE, Filler, as_message, pipeline_file
from benchmarks.sink import Sink
from benchmarks.workplace import Program, Workplace, python
from pipeline.engine.routes import delivery


@contextmanager
def filled(workplace: Workplace, place: Path, sink: Sink) -> Iterator[Deliveries]:
    """Give a queue, empty at first, for deliveries to this sink."""
    server = workplace.server("redis")
    url = server.url(server.port)
    with Redis.from_url(url) as redis:
        redis.flushdb()
    configs = place / "configs"
    configs.mkdir()
    (configs / "bench.yaml").write_text(pipeline_file(f"webhook: {sink.url}"))
    environment = {"SIFTBELL_BROKER": url, "SIFTBELL_CONFIG": str(configs), "SIFTBELL_DATA": str(place / "data")}
    environment["SIFTBELL_PRIVATE_NETWORKS"] = "127.0.0.1"
    with Filler(place, environment) as filler:
        yield Deliveries(place, environment, filler)


@dataclass(frozen=True, slots=True)
class Deliveries:
    """A queue of deliveries, on Redis, and the workers that make them."""

    place: Path
    environment: dict[str, str]
    filler: Filler

    def fill(self, count: int, first: int = 0) -> None:
        """Put messages on the queue as the filters do: in batches, confirmed."""
        pipeline = self.filler.pipeline
        (step,) = pipeline.spec.consumers
        messages = [as_message(number) for number in range(first, first + count)]
        self.filler.publish(delivery(PIPELINE, step, messages, revision=pipeline.spec.revision))

    @contextmanager
    def workers(self, count: int) -> Iterator[list[Program]]:
        """Run `siftbell worker --only deliveries` so many times, each with its defaults, on one store; ends when left."""
        command = python("pipeline.cli", "worker", "--only", "deliveries")
        with ExitStack() as running:
            programs = []
            for number in range(count):
                directory = Path(mkdtemp(prefix=f"worker-{number}-", dir=self.place))
                programs.append(running.enter_context(Program(command, directory, self.environment)))
            yield programs
