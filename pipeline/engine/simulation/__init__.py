"""The simulation: a pipeline in the real engine, with a clock that jumps, consumers that only note, and workers that may die.

Store, memory, batches, retries, circuits, rates, lanes and schedules are the engine's own. Nothing sleeps and nothing is left to
chance: the same calls give the same deliveries, message for message and second for second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from pipeline.engine.clock import TICK
from pipeline.engine.simulation.asking import Asking
from pipeline.engine.simulation.crew import Crew
from pipeline.engine.simulation.deaths import Where
from pipeline.engine.simulation.files import give_back, take
from pipeline.engine.simulation.posting import Answer as Answer
from pipeline.engine.simulation.posting import post
from pipeline.engine.simulation.stage import Attempt, ListQueue, Outage, Outside, fake_consumer, fake_producer
from pipeline.errors import PermanentError
from pipeline.message import Message
from pipeline.plugin import Note, PollingProducer, WebhookProducer
from pipeline.present import Pretence, pretending
from pipeline.request import Request
from pipeline.secrecy import masker, secrets_in
from pipeline.spec.model import Configuration, ConsumerStep, PipelineSpec, ProducerStep
from pipeline.store import DeadLetter, Record
from pipeline.store.rows import CircuitState

T = TypeVar("T")

LONGEST: Final = timedelta(days=31)
"""For how long a simulation goes on where something waits and nobody says how long."""


class Simulation:
    """A pipeline from `start` on; use it as a context manager.

    `skew`: by how much the clock of each worker is fast; those without one go right. The files are in `directory`, or where
    nobody needs to look. Time passes in `run_until` and `run_until_idle` only; what is sent before is on the queue.
    """

    def __init__(
        self,
        pipeline: PipelineSpec | Configuration,
        *,
        start: datetime,
        workers: int = 1,
        skew: Sequence[timedelta] = (),
        directory: Path | None = None,
    ) -> None:
        self.spec = pipeline if isinstance(pipeline, PipelineSpec) else _only(pipeline)
        self.now = start
        self._skews = [*skew, *[timedelta()] * (workers - len(skew))]
        self._directory = directory
        self._outside = Outside(lambda: self.now)
        self._fakes = _with_fakes(self.spec, self._outside)
        self._real = {step.label for step in self.spec.producers if _stays(step)}
        self._asking = Asking(self._fakes, self._real, self._outside, start)
        self._queue = ListQueue()
        self._numbers = count(1)
        self._chance = random.Random(0)  # noqa: S311 - jitter that is the same each time
        self._pretence = Pretence(lambda: self.now + self._crew.skew, self._new_id, self._chance.uniform)
        self._accepted: list[tuple[datetime, str, Message]] = []
        self._looked: datetime | None = None
        self._known: dict[str, tuple[int, Any]] = {}
        """What was seen in the store, and how much had changed it by then."""
        self.mask = masker(
            secret
            for step in (*self.spec.producers, *self.spec.filters, *self.spec.consumers)
            for secret in secrets_in(step.config)
        )
        """Hides the secrets of the pipeline's plugins in a text."""

    def __enter__(self) -> Self:
        self._files = take(len(self._skews), self._directory)
        self._files.begin([lambda skew=skew: self.now + skew for skew in self._skews])  # type: ignore[misc]  # mypy takes no default
        self.store = self._files.store
        self._crew = Crew(self._fakes, self._skews, self._queue, self._outside, self._files, self._note)
        with pretending(self._pretence):
            self._crew.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._crew.stop()
        give_back(self._files, len(self._skews), self._directory)

    @property
    def deliveries(self) -> dict[str, list[tuple[datetime, Message]]]:
        """What each consumer took, in order, by its label; consumers that took nothing have an empty list."""
        return {
            step.label: [(one.at, one.message) for one in self.attempts(step.label) if one.error is None]
            for step in self.spec.consumers
        }

    @property
    def accepted(self) -> Sequence[tuple[datetime, str, Message]]:
        """What was accepted: when, from which producer, and the message."""
        return self._accepted

    @property
    def idle(self) -> bool:
        """Whether nothing is on the queue, nothing is held, nothing stands in line, and nothing waits to be asked for."""
        return not len(self._queue) and not self.held and not self._asking.unasked

    @property
    def died(self) -> int:
        """How many workers and clocks have died."""
        return self._crew.died

    @property
    def failures(self) -> Sequence[tuple[datetime, str, str]]:
        """When asking a producer failed, which one, and how."""
        return self._asking.failures

    @property
    def held(self) -> int:
        """How many messages wait in the store; what a filter keeps for a key is none."""
        return self._once("held", self._count_held)

    def attempts(self, consumer: str) -> list[Attempt]:
        """Give what a consumer was given, in order, with what it failed with."""
        return self._outside.attempts.get(consumer, [])

    def records(self, message_id: str) -> list[Record]:
        """Give the last decision of every step about a message."""
        return self.store.history(message_id)

    def dead_letters(self) -> list[DeadLetter]:
        """Give what was buried, oldest first, up to ten thousand."""
        return self.store.dead_letters(limit=10_000)[::-1]

    def send(self, producer: str, request: Request) -> Answer:
        """Post a payload to a producer, as the intake takes it; what it makes of it is on the queue when this returns."""
        with pretending(self._pretence):
            step = self._producer(producer)
            answer, told = post(self._crew.pipeline, step, request, real=producer in self._real)
            messages = [one for one in told if not isinstance(one, Note)]
            if notes := {one.name: one.text for one in told if isinstance(one, Note)}:
                self.store.write_notes(self.spec.name, producer, notes)
            self._accept(messages, producer)
            return replace(answer, messages=tuple(messages))

    def message(self, **fields: Any) -> Message:
        """Make a message whose id and time are of the simulated moment, where they are not given."""
        with pretending(self._pretence):
            return Message(**fields)

    def accept(self, messages: Sequence[Message], producer: str = "") -> None:
        """Put messages on the queue, as those of a producer that somebody posts to, or that listens."""
        with pretending(self._pretence):
            self._accept(messages, producer)

    def provide(self, producer: str, messages: Sequence[Message]) -> None:
        """Let a polling producer have messages when it is asked next; one without a schedule is asked at once.

        One that is really asked, as it asks nobody else, is taken to have made them now.
        """
        if producer in self._real:
            self.accept(messages, producer)
            return
        with pretending(self._pretence):
            step = self._producer(producer)
            self._asking.news(producer, self.now)
            self._outside.given.setdefault(producer, []).extend(messages)
            if step.schedule is None:
                self._crew.runner.poll(self._crew.pipeline, producer)

    def run_until(self, moment: datetime) -> None:
        """Let time pass until `moment`, and do what is to be done up to then."""
        with pretending(self._pretence):
            self._crew.work()
            while (due := self._next()) is not None and due <= moment:
                self._go_to(due)
            self.now = max(self.now, moment)

    def run_until_idle(self, limit: timedelta = LONGEST) -> bool:
        """Let time pass until nothing waits any more; false where something still does after `limit`."""
        with pretending(self._pretence):
            end = self.now + limit
            self._crew.work()
            while (due := self._next()) is not None and not self.idle:
                if due > end:
                    return False
                self._go_to(due)
            return True

    def work(self) -> None:
        """Do what is on the queue, without letting time pass."""
        with pretending(self._pretence):
            self._crew.work()

    def restart(self) -> None:
        """End all processes in an orderly way, and start them again on the same files and the same queue."""
        with pretending(self._pretence):
            self._crew.stop()
            self._files.close()
            self._crew.start()

    def forget(self) -> None:
        """Lose the memory, as when a Redis is flushed."""
        self._files.forget()

    def chaos(self, seed: int | None) -> None:
        """From now on give batches to workers in any order, some of them twice, the same for the same seed; None: no more."""
        self._queue.disorder(seed)

    def kill_next(self, where: Where) -> None:
        """Let the next worker or clock that comes there die; another takes its place, and gets what it was working on."""
        self._crew.kill_next(where)

    def fail(self, consumer: str, error: Exception, *, for_: timedelta | None = None, after: timedelta = timedelta()) -> None:
        """Let a consumer raise this from now on, or `after` a while; `for_` a time, or for ever."""
        self._crew.changes += 1
        start = self.now + after
        self._outside.outages.append(Outage(consumer, error, start, None if for_ is None else start + for_))

    def sent(self, consumer: str, message: Message) -> object:
        """Give what a real consumer would have sent, as it says itself."""
        step: ConsumerStep = next(step for step in self.spec.consumers if step.label == consumer)
        plugin: Any = step.build()
        with pretending(self._pretence):
            return plugin.preview(message)

    def _accept(self, messages: Sequence[Message], producer: str) -> None:
        self._looked = None  # what it leads to may be due at once
        if messages:
            self._crew.runner.accept(self._crew.pipeline, producer, messages)

    def _note(self, producer: str, messages: Sequence[Message]) -> None:
        self._crew.changes += 1
        self._accepted += [(self.now, producer, message) for message in messages]

    def _producer(self, label: str) -> ProducerStep:
        found = next((step for step in self.spec.producers if step.label == label), None)
        if found is None:
            raise PermanentError(f"pipeline '{self.spec.name}' has no producer '{label}'")
        return found

    def _go_to(self, moment: datetime) -> None:
        """Let it be this moment, and do what is due."""
        self.now = moment
        if (due := self._due_in_store()) is not None and due <= moment:
            self._looked = moment
            self._crew.tick()
        if (due := self._asking.next()) is not None and due <= moment:
            self._crew.ask(self._asking, self.now)
        self._crew.work()

    def _next(self) -> datetime | None:
        """Give when something happens next; what should have happened already does at the clocks' next look. None: never."""
        due, asked = self._due_in_store(), self._asking.next()
        if due is not None:
            due = max(due, self.now if self._looked != self.now else self.now + timedelta(seconds=TICK))
        return min((moment for moment in (due, asked) if moment is not None), default=None)

    def _due_in_store(self) -> datetime | None:
        """Give when the fastest clock finds something to do; looked up when something may have changed."""
        return self._once("due", lambda: min(self._moments(), default=None))

    def _once(self, name: str, look: Callable[[], T]) -> T:
        """Give what a look at the store tells; as it was told before, where nothing can have changed."""
        known = self._known.get(name)
        if known is None or known[0] != self._crew.changes:
            known = self._known[name] = (self._crew.changes, look())
        found: T = known[1]
        return found

    def _count_held(self) -> int:
        return sum(self.store.held_counts().values())

    def _moments(self) -> Iterator[datetime]:
        ahead = max(self._skews)
        stored = (self.store.next_due(), self.store.lanes.next_ready())
        yield from (moment - ahead for moment in stored if moment is not None)
        if self._outside.outages and self.held:  # nobody tries a service that nothing waits for
            broken = (circuit for circuit in self.store.circuits() if circuit.state is not CircuitState.CLOSED)
            yield from (circuit.until - ahead for circuit in broken if circuit.until - ahead > self.now)

    def _new_id(self) -> str:
        """Give ids that sort by time and by the order in which they were asked for."""
        moment = int((self.now + self._crew.skew).timestamp() * 1000) & 0xFFFFFFFFFFFF
        number = next(self._numbers)
        return str(UUID(int=moment << 80 | 7 << 76 | (number >> 62 & 0xFFF) << 64 | 2 << 62 | number & (1 << 62) - 1))


def _only(configuration: Configuration) -> PipelineSpec:
    (spec,) = configuration.pipelines.values()
    return spec


def _with_fakes(spec: PipelineSpec, outside: Outside) -> PipelineSpec:
    """Give the pipeline with fakes in place of what would reach another system."""
    return replace(
        spec,
        producers=tuple(step if _stays(step) else fake_producer(step, outside) for step in spec.producers),
        consumers=tuple(fake_consumer(step, outside) for step in spec.consumers),
    )


def _stays(step: ProducerStep) -> bool:
    """Say whether a producer asks nobody else: it is posted to, or asks for what was posted to it and it has noted."""
    if not issubclass(step.type, WebhookProducer):
        return False
    return not issubclass(step.type, PollingProducer) or step.type.asks_for is None or not step.polls
