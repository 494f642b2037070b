"""The crew of a simulation: workers with a clock each, who do what is to be done in turn, and of whom some may die."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Final

from pipeline.engine.batch import Batch
from pipeline.engine.clock import Clock
from pipeline.engine.pipeline import Pipeline, Pipelines
from pipeline.engine.runner import Runner
from pipeline.engine.simulation.asking import Asking, NoPolls
from pipeline.engine.simulation.deaths import Fate, KilledError, MortalQueue, Where, mortal
from pipeline.engine.simulation.files import Files
from pipeline.engine.simulation.stage import ListQueue, Outside, Unhurried
from pipeline.errors import TemporaryError
from pipeline.message import Message
from pipeline.spec.model import Configuration, PipelineSpec

RETENTION: Final = timedelta(days=36_500)
"""Records are kept: at the end somebody asks for them."""
PUT_BACK: Final = 1000
"""So often batches may go back to the queue before somebody should look at it."""

Noted = Callable[[str, Sequence[Message]], None]


class _Runner(Runner):
    """A runner that tells what it accepts."""

    noted: Noted

    def accept(self, pipeline: Pipeline, producer: str, messages: Sequence[Message]) -> None:
        """Put a producer's messages on the queue."""
        super().accept(pipeline, producer, messages)
        self.noted(producer, messages)


class _Clock(Clock):
    """A clock that asks no producers, and forgets nothing."""

    def __init__(self, runner: Runner, *, owner: str) -> None:
        super().__init__(runner, owner=owner, retention=RETENTION)
        self._polls = NoPolls(runner, owner)

    def _purge(self, now: datetime) -> None:
        """Forget nothing: at the end somebody asks for it."""


@dataclass(slots=True)
class _Worker:
    """The objects of one machine."""

    skew: timedelta
    fate: Fate
    runner: Runner
    clock: _Clock


class Crew:
    """The workers on one store, one memory and one queue; `skews` says by how much the clock of each is fast."""

    def __init__(
        self, pipeline: PipelineSpec, skews: Sequence[timedelta], queue: ListQueue, outside: Outside, files: Files, noted: Noted
    ) -> None:
        self._pipeline = pipeline
        self._skews = skews
        self._queue = queue
        self._outside = outside
        self._files = files
        self._noted = noted
        self._turns = count()
        self._workers: list[_Worker] = []
        self._dying: Where | None = None
        self._put_back = 0
        self.skew = timedelta()
        """By how much the clock of who works now is fast."""
        self.died = 0
        """How many workers and clocks have died."""
        self.changes = 0
        """Counts what may have changed the store."""

    @property
    def runner(self) -> Runner:
        """The first worker's."""
        return self._workers[0].runner

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline, as the first worker has it."""
        return self.runner.pipelines[self._pipeline.name]

    def start(self) -> None:
        """Begin, with new objects."""
        self._workers = [self._worker(index) for index in range(len(self._skews))]

    def stop(self) -> None:
        """End in an orderly way."""
        for worker in self._workers:
            worker.runner.pipelines.close()
        self._workers = []

    def kill_next(self, where: Where) -> None:
        """Let the next who comes there die."""
        self._dying = where
        for worker in self._workers:
            worker.fate.die(where)

    def work(self) -> None:
        """Do what is on the queue, batch by batch, each by the next worker."""
        while len(self._queue):
            batch, worker = self._queue.take(), self._next()
            try:
                with self._as(worker, batch.job):
                    worker.runner.run(batch)
            except KilledError:
                self._next().runner.lost(batch)
            except TemporaryError:
                self._back(batch)

    def tick(self) -> None:
        """Have each clock do what it finds due."""
        for worker in list(self._workers):
            with suppress(KilledError), self._as(worker, "tick"):
                while worker.clock.tick():
                    pass

    def ask(self, asking: Asking, now: datetime) -> None:
        """Have those asked whose time it is."""
        worker = self._workers[0]
        with suppress(KilledError), self._as(worker, "poll"):
            asking.ask(worker.runner, self.pipeline, now)

    def _next(self) -> _Worker:
        return self._workers[next(self._turns) % len(self._workers)]

    def _back(self, batch: Batch) -> None:
        self._put_back += 1
        if self._put_back > PUT_BACK:
            raise RuntimeError(f"batches went back to the queue {PUT_BACK} times")
        self._queue.publish([batch])

    @contextmanager
    def _as(self, worker: _Worker, job: str) -> Iterator[None]:
        """Let a worker do something, by its own clock; where it dies over that, another one takes its place."""
        self.skew = worker.skew
        self.changes += job != "poll"  # of a poll it is known what it accepts
        worker.fate.begin(job)
        try:
            yield
            worker.fate.end()
        except KilledError:
            self.died += 1
            self._dying = None
            for other in self._workers:
                other.fate.die(None)
            index = self._workers.index(worker)
            self._workers[index] = self._worker(index)
            raise
        finally:
            self.skew = timedelta()

    def _worker(self, index: int) -> _Worker:
        skew, fate = self._skews[index], Fate()
        fate.die(self._dying)

        def now() -> datetime:
            return self._outside.now() + skew

        pipelines = Pipelines(Configuration({self._pipeline.name: self._pipeline}))
        memory = Unhurried(self._files.memory(index), self._outside)
        store, queue = mortal(self._files.store, fate), MortalQueue(self._queue, fate)
        runner = _Runner(pipelines, store, memory, queue, now=now)
        runner.noted = self._noted
        return _Worker(skew, fate, runner, _Clock(runner, owner=f"clock {index}"))
