"""The world around a simulated pipeline: consumers that take messages or fail, producers that are asked, a queue in memory."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final

from pipeline.engine.batch import Batch, decode, encode
from pipeline.memory import MemoryBackend, Reservation
from pipeline.message import Message
from pipeline.plugin import BatchConsumer, Consumer, Failures, Memory, Plugin, PollingProducer
from pipeline.spec.model import ConsumerStep, ProducerStep

TWICE: Final = 0.2
"""How many of the batches come twice where a queue is in disorder."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which a consumer fails."""

    consumer: str
    error: Exception
    start: datetime
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A message that a consumer was given, when, and what it raised."""

    at: datetime
    message: Message
    error: Exception | None = None


@dataclass
class Outside:
    """What consumers got and polling producers have, whatever becomes of the engine."""

    now: Callable[[], datetime]
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    given: dict[str, list[Message]] = field(default_factory=dict)
    """By producer: all that it ever has; its cursor is how much of that was fetched."""
    waits: dict[str, deque[timedelta]] = field(default_factory=dict)
    """By consumer: for how long each of the next messages waits for its turn at the consumer's rate."""

    def take(self, consumer: str, message: Message, *, together: bool = False) -> Exception | None:
        """Note that a consumer was given a message, and give the error that it raises."""
        waits = self.waits.get(consumer)
        wait = timedelta() if not waits else waits[-1] if together else waits.popleft()
        at = self.now() + wait
        error = next((one.error for one in self.outages if one.consumer == consumer and _holds(one, at)), None)
        self.attempts.setdefault(consumer, []).append(Attempt(at, message, error))
        return error


def _holds(outage: Outage, at: datetime) -> bool:
    return outage.start <= at and (outage.end is None or at < outage.end)


class FakeConsumer(Consumer[Any]):
    """Takes messages one by one in a consumer's place. On the event loop, as there they begin in order."""

    outside: Outside
    label: str

    async def consume(self, message: Message) -> None:
        """Take it, or fail."""
        if (error := self.outside.take(self.label, message)) is not None:
            raise error


class FakeBatchConsumer(BatchConsumer[Any]):
    """Takes several at once in a consumer's place."""

    outside: Outside
    label: str

    def consume_many(self, messages: Sequence[Message]) -> Failures:
        """Take them, or fail."""
        errors = {message.id: self.outside.take(self.label, message, together=True) for message in messages}
        return {message_id: error for message_id, error in errors.items() if error is not None}


class FakePoller(PollingProducer[Any]):
    """Is asked in place of a producer that would ask another system."""

    outside: Outside
    label: str

    def poll(self, cursor: str | None) -> Iterable[tuple[Message, str]]:
        """Give what there is behind the cursor."""
        start = int(cursor or 0)
        for number, message in enumerate(self.outside.given.get(self.label, [])[start:], start + 1):
            yield message, str(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FakeConsumerStep(ConsumerStep):
    outside: Outside

    def build(self) -> Plugin[Any]:
        made = FakeBatchConsumer(self.config) if self.batches else FakeConsumer(self.config)
        made.outside, made.label = self.outside, self.label
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class _FakeProducerStep(ProducerStep):
    outside: Outside

    def build(self) -> Plugin[Any]:
        made = FakePoller(self.config)
        made.outside, made.label = self.outside, self.label
        return made


def fake_consumer(step: ConsumerStep, outside: Outside) -> ConsumerStep:
    """Give a step that is like this one in all that the engine knows of it."""
    return _FakeConsumerStep(**_fields(step), outside=outside)


def fake_producer(step: ProducerStep, outside: Outside) -> ProducerStep:
    """Give a step that is asked by the same schedule."""
    return _FakeProducerStep(**_fields(step), outside=outside)


def _fields(step: ConsumerStep | ProducerStep) -> Mapping[str, Any]:
    return {one.name: getattr(step, one.name) for one in fields(step)}


class Unhurried:
    """A memory whose turns, for consumers with a rate, are noted where a worker would sleep until they come."""

    def __init__(self, memory: MemoryBackend, outside: Outside) -> None:
        self._memory = memory
        self._outside = outside

    def scoped(self, pipeline: str, step: str, asker: str = "") -> Memory:
        """Give a step's memory."""
        return self._memory.scoped(pipeline, step, asker)

    def reserve(
        self, pipeline: str, step: str, interval: timedelta, patience: timedelta, *, again: int, fresh: int
    ) -> Reservation:
        """Give turns, all of them now."""
        found = self._memory.reserve(pipeline, step, interval, patience, again=again, fresh=fresh)
        turns = (max(timedelta(), found.first + index * interval) for index in range(found.granted))
        self._outside.waits[step] = deque(turns)
        return Reservation(found.granted, -found.granted * interval, found.line)

    def purge(self) -> int:
        """Delete what is over."""
        return self._memory.purge()

    def close(self) -> None:
        """Close nothing: the files are their owner's."""


class ListQueue:
    """A broker in this process: what is published is written and read as on the way through a real one."""

    def __init__(self) -> None:
        self.largest = sys.maxsize
        self._texts: list[bytes] = []
        self._disorder: random.Random | None = None

    def __len__(self) -> int:
        return len(self._texts)

    def disorder(self, seed: int | None) -> None:
        """From now on give batches in any order, some of them twice; None: in order, once."""
        self._disorder = None if seed is None else random.Random(seed)  # noqa: S311 - the same each time

    def publish(self, batches: Sequence[Batch]) -> None:
        """Take batches."""
        self._texts += [encode(batch) for batch in batches]

    def take(self) -> Batch:
        """Give a batch."""
        if self._disorder is None:
            return decode(self._texts.pop(0))
        index = self._disorder.randrange(len(self._texts))
        text = self._texts[index] if self._disorder.random() < TWICE else self._texts.pop(index)
        return decode(text)
