"""An engine with everything real but the broker: a SQLite store, and a queue that is a list."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline import Consumer, Message, NoOptions, TemporaryError
from pipeline.condition import Condition
from pipeline.engine.batch import Batch, decode, encode
from pipeline.engine.clock import Clock
from pipeline.engine.pipeline import Pipeline, Pipelines
from pipeline.engine.publisher import Publisher
from pipeline.engine.routes import incoming
from pipeline.engine.runner import Runner
from pipeline.engine.written import write
from pipeline.memory import open_memory
from pipeline.plugin import Plugin
from pipeline.spec.model import Configuration, ConsumerStep, FilterStep, Keep, PipelineSpec, Position, ProducerStep
from pipeline.store import Store

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class ListQueue:
    """A broker that can be sent away."""

    batches: list[Batch] = field(default_factory=list)
    away: bool = False
    calls: int = 0
    before: Callable[[], None] = lambda: None
    largest: int = sys.maxsize

    def publish(self, batches: Sequence[Batch]) -> None:
        self.calls += 1
        self.before()
        if self.away:
            raise TemporaryError("the broker is away")
        self.batches += [decode(encode(batch)) for batch in batches]

    def take(self) -> list[Batch]:
        taken, self.batches = self.batches, []
        return taken


@dataclass
class Engine:
    """A runner on one pipeline, with a clock that stands until it is moved."""

    runner: Runner
    queue: ListQueue
    store: Store
    clock: Clock
    moment: list[datetime]

    def send(self, *messages: Message) -> None:
        pipeline = next(iter(self.runner.pipelines))
        self.queue.publish(incoming(pipeline, messages))

    def work(self) -> None:
        """Run what is on the queue until nothing is left."""
        while batches := self.queue.take():
            for batch in batches:
                self.runner.run(batch)

    def later(self, **by: float) -> None:
        """Move the clock, bring back what is due, and work it off."""
        self.moment[0] += timedelta(**by)
        while self.clock.tick():
            pass
        self.work()

    def outcomes(self, message: Message) -> dict[str, str]:
        return {record.step: record.outcome.value for record in self.store.history(message.id)}


def step_of(kind: type, plugin: type[Plugin[Any]], **siblings: Any) -> Any:
    label = siblings.pop("label", plugin.__name__.lower())
    if kind is ConsumerStep:
        siblings.setdefault("queue", label)
    if isinstance(siblings.get("when"), str):
        siblings["when"] = Condition(siblings["when"])
    names = {ProducerStep: "producer", FilterStep: "filter", ConsumerStep: "consumer"}
    return kind(
        kind=names[kind],
        plugin=label,
        type=plugin,
        label=label,
        config=siblings.pop("config", NoOptions()),
        position=Position(Path("toy.yaml"), 3, 5),
        **siblings,
    )


def spec_of(
    producers: Iterable[ProducerStep] = (),
    filters: Iterable[FilterStep] = (),
    consumers: Iterable[ConsumerStep] = (),
    keep: Keep | None = None,
) -> PipelineSpec:
    return PipelineSpec(
        name="toy",
        producers=tuple(producers),
        filters=tuple(filters),
        consumers=tuple(consumers),
        keep=keep,
        revision="r1",
        position=Position(Path("toy.yaml"), 1, 1),
    )


@pytest.fixture
def hand_in():
    """Hand messages to a publisher as a request does, and give a future that threads can wait for."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def hand_in(publisher: Publisher, pipeline: Pipeline, producer: str, messages: Sequence[Message]) -> Future[None]:
        async def submit() -> asyncio.Future[None]:
            return publisher.submit(pipeline, producer, write(messages, publisher.largest))

        async def outcome(accepted: asyncio.Future[None]) -> None:
            await accepted

        accepted = asyncio.run_coroutine_threadsafe(submit(), loop).result(30)
        return asyncio.run_coroutine_threadsafe(outcome(accepted), loop)

    yield hand_in
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def store(tmp_path):
    made = Store(f"sqlite:///{tmp_path / 'store.db'}")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def queue():
    return ListQueue()


@pytest.fixture
def message():
    def make(**fields: Any) -> Message:
        return Message(**{"source": "test", "time": START} | fields)

    return make


@pytest.fixture
def producer():
    return lambda plugin, **siblings: step_of(ProducerStep, plugin, **siblings)


@pytest.fixture
def filter_step():
    return lambda plugin, **siblings: step_of(FilterStep, plugin, **siblings)


@pytest.fixture
def consumer():
    return lambda plugin, **siblings: step_of(ConsumerStep, plugin, **siblings)


@pytest.fixture
def box():
    """A consumer of the test's own, and what it got."""

    class Box(Consumer[NoOptions]):
        """Keeps what it gets."""

        got: list[Message] = []

        def consume(self, message):
            Box.got.append(message)

    return Box


@pytest.fixture
def spec():
    return spec_of


@pytest.fixture
def engine(store, queue):
    opened = []

    def make(*, producers=(), filters=(), consumers=(), keep=None) -> Engine:
        configuration = Configuration({"toy": spec_of(producers, filters, consumers, keep)})
        moment = [START]
        memory = open_memory(str(store.url), now=lambda: moment[0])
        runner = Runner(Pipelines(configuration), store, memory, queue, now=lambda: moment[0])
        clock = Clock(runner, owner="test", retention=timedelta(days=7))
        opened.append((runner, memory))
        return Engine(runner, queue, store, clock, moment)

    yield make
    for runner, memory in opened:
        runner.pipelines.close()
        memory.close()
