"""Specs: pipelines as declared in YAML, validated, with each step's place in its file."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.condition import Condition
from pipeline.errors import PermanentError
from pipeline.message import Message
from pipeline.networks import ANYWHERE, Networks
from pipeline.plugin import BatchConsumer, Config, ListeningProducer, Plugin, PollingProducer
from pipeline.registry import Kind as Kind  # noqa: PLC0414 - the kinds of plugin belong to the model's vocabulary, too
from pipeline.rendering import Rendering
from pipeline.schedule import Schedule as Schedule  # noqa: PLC0414 - a step has one
from pipeline.units import Rate


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; line and column count from 1."""

    file: Path
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Retry:
    """How temporary errors are tried again (`retry: {for: 6h, first: 1s, longest: 10m}`)."""

    lasting: timedelta = timedelta(hours=6)
    """How long a message is tried again before it is buried."""
    first: timedelta = timedelta(seconds=1)
    """The longest wait before the second attempt; doubles with each."""
    longest: timedelta = timedelta(minutes=10)
    """The longest wait between two attempts, where the other side asks for no longer one."""


@dataclass(frozen=True, slots=True)
class Keep:
    """For how long a pipeline's messages are kept as they were accepted, and how many (`keep: {for: 24h, most: 100000}`)."""

    lasting: timedelta
    most: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a pipeline: a plugin, its validated options, and what the engine is told beside them."""

    kind: Kind
    plugin: str
    """The plugin's name as in YAML: an entry point's name, or `module:Class`."""
    type: type[Plugin[Any]]
    label: str
    """The name of this line: `as:`, else the plugin's name. Unique among the producers, and among filters and consumers."""
    config: Config
    position: Position
    shared: str | None = None
    """The name in siftbell.yaml of a step that several pipelines may use."""
    when: Condition | None = None
    """Filter: applies to messages for which it holds, the others pass. Consumer: gets only those."""
    active: bool = True
    networks: Networks = ANYWHERE
    """Where the plugin may connect to."""

    def build(self) -> Plugin[Any]:
        """Make the plugin."""
        plugin = self.type(self.config)
        plugin.networks = self.networks
        return plugin


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerStep(Step):
    """A producer; `schedule` is set for polling producers that are asked by the clock."""

    schedule: Schedule | None = None

    @property
    def listens(self) -> bool:
        """Whether a clock lets it listen: where it could do both, a schedule says that it is polled."""
        return issubclass(self.type, ListeningProducer) and self.schedule is None

    @property
    def polls(self) -> bool:
        """Whether it can be asked: by its schedule, or on demand."""
        return issubclass(self.type, PollingProducer) and self.type.asks(self.config) and not self.listens


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterStep(Step):
    """A filter; `queue` starts a new hop, on a queue of that name."""

    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStep(Step):
    """A consumer; its batches wait on the queue `out.QUEUE`."""

    queue: str
    concurrency: int = 50
    """How many messages it is given at once, by each worker process."""
    retry: Retry = Retry()
    rate: Rate | None = None
    """How many messages it is given in a time, over all workers."""
    ordered: bool = False
    """Messages of one key reach it in the order in which they were accepted."""
    render: Rendering | None = None
    """How messages are written for it."""

    @property
    def batches(self) -> bool:
        """Whether its plugin is given several messages at once."""
        return issubclass(self.type, BatchConsumer) and self.type.takes_batches(self.config)

    def written(self, message: Message) -> Message:
        """Give a message as the consumer gets it; raises `PermanentError` that names field and place where a template fails.

        What is recorded, tried again and put into order is the message itself.
        """
        if self.render is None:
            return message
        try:
            return self.render.render(message)
        except PermanentError as error:
            raise PermanentError(f"render.{error} (of the consumer at {self.position})") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """A pipeline as its file declares it. Inactive steps are left out of the lists."""

    name: str
    description: str = ""
    producers: tuple[ProducerStep, ...] = ()
    filters: tuple[FilterStep, ...] = ()
    consumers: tuple[ConsumerStep, ...] = ()
    keep: Keep | None = None
    """Whether its messages are kept for `siftbell replay`."""
    revision: str = ""
    """A hash of what is declared, secrets left out: changes when the pipeline's meaning may have changed."""
    position: Position

    @property
    def ordered(self) -> bool:
        """Whether one of its consumers is ordered: its messages stand in line, by key, from the beginning."""
        return any(step.ordered for step in self.consumers)


@dataclass(frozen=True, slots=True)
class Configuration:
    """All pipelines by name, and the files they came from."""

    pipelines: dict[str, PipelineSpec] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
