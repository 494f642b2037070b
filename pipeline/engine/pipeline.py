"""Running pipelines: specs with their plugins, each made and opened in the process and at the moment that first needs it."""

from __future__ import annotations

import inspect
import threading
from functools import cached_property
from typing import Any, cast

from pipeline.engine.batch import Batch
from pipeline.engine.loop import run_on_loop
from pipeline.errors import PermanentError
from pipeline.message import Message
from pipeline.plugin import AnyConsumer, AnyFilter, Consumer, Filter, Memory, Plugin, Results
from pipeline.secrecy import masker, secrets_in
from pipeline.spec.model import Configuration, ConsumerStep, FilterStep, PipelineSpec, ProducerStep, Step


class UnknownStepError(PermanentError):
    """A message stands at a pipeline or step that the configuration no longer has."""


class Pipeline:
    """One pipeline: its spec, and its plugins by step."""

    def __init__(self, spec: PipelineSpec) -> None:
        self.spec = spec
        self._plugins: dict[tuple[str, str], Plugin[Any]] = {}
        self._opening = threading.Lock()
        steps = (*spec.producers, *spec.filters, *spec.consumers)
        self.mask = masker(secret for step in steps for secret in secrets_in(step.config))
        """Hides the secrets of all its plugins in a text."""

    @property
    def straight(self) -> ConsumerStep | None:
        """The consumer that its messages go to at once, if it is the only one and nothing is decided about them before it."""
        only = self._only_consumer
        return only if only is not None and only.when is None and not self.spec.filters else None

    @cached_property
    def filters_there(self) -> ConsumerStep | None:
        """The consumer whose workers filter what comes singly, if it is the only one and all filters and conditions are light."""
        filters = all(
            issubclass(step.type, Filter) and step.type.is_light(step.config) and not step.queue for step in self.spec.filters
        )
        steps = (*self.spec.filters, *self.spec.consumers)
        conditions = all(step.when is None or step.when.is_light for step in steps)
        return self._only_consumer if filters and conditions else None

    @property
    def _only_consumer(self) -> ConsumerStep | None:
        return self.spec.consumers[0] if len(self.spec.consumers) == 1 and not self.spec.ordered else None

    def producer(self, label: str) -> ProducerStep | None:
        """Give the producer of that label, or None."""
        return next((step for step in self.spec.producers if step.label == label), None)

    def consumer(self, label: str) -> ConsumerStep:
        """Give the consumer of that label; raises `UnknownStepError`."""
        for step in self.spec.consumers:
            if step.label == label:
                return step
        raise UnknownStepError(f"pipeline '{self.spec.name}' has no consumer '{label}' any more")

    def filters_after(self, label: str) -> tuple[FilterStep, ...]:
        """Give the filters behind the one of that label, all where it is empty; raises `UnknownStepError`."""
        if not label:
            return self.spec.filters
        for index, step in enumerate(self.spec.filters):
            if step.label == label:
                return self.spec.filters[index + 1 :]
        raise UnknownStepError(f"pipeline '{self.spec.name}' has no filter '{label}' any more")

    def before(self, label: str) -> str:
        """Give the label of the filter before the one of that label, empty for the first; raises `UnknownStepError`."""
        behind = self.filters_after(label)
        index = len(self.spec.filters) - len(behind) - 2
        return self.spec.filters[index].label if index >= 0 else ""

    def filter_plugin(self, step: FilterStep) -> AnyFilter:
        """Give a filter step's plugin, opened."""
        return cast("AnyFilter", self.plugin(step))

    def consumer_plugin(self, step: ConsumerStep, memory: Memory, results: Results | None = None) -> AnyConsumer:
        """Give a consumer step's plugin, opened; `memory` and `results` are the step's: what it remembers by, and notes."""
        return cast("AnyConsumer", self.plugin(step, memory, results))

    def plugin(self, step: Step, memory: Memory | None = None, results: Results | None = None) -> Plugin[Any]:
        """Give a step's plugin; it is made and opened at the first call in this process."""
        place = (step.kind, step.label)
        found = self._plugins.get(place)
        if found is None:
            with self._opening:
                found = self._plugins.get(place)
                if found is None:
                    found = step.build()
                    if isinstance(found, Consumer):
                        found.memory, found.results = memory, results
                    found.open()
                    self._plugins[place] = found
        return found

    def close(self) -> None:
        """Close the plugins that were opened."""
        while self._plugins:
            _, plugin = self._plugins.popitem()
            if isinstance(plugin, Consumer) and inspect.iscoroutinefunction(plugin.consume):
                run_on_loop(plugin.aclose(), timeout=5)
            plugin.close()


class Pipelines:
    """All pipelines of a configuration, by name."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._pipelines = {name: Pipeline(spec) for name, spec in configuration.pipelines.items()}

    def __iter__(self) -> Any:
        return iter(self._pipelines.values())

    def get(self, name: str) -> Pipeline | None:
        """Give the pipeline of that name, or None."""
        return self._pipelines.get(name)

    def __getitem__(self, name: str) -> Pipeline:
        """Give the pipeline of that name; raises `UnknownStepError`."""
        if (found := self._pipelines.get(name)) is None:
            raise UnknownStepError(f"there is no pipeline '{name}' any more")
        return found

    def close(self) -> None:
        """Close all plugins."""
        for pipeline in self._pipelines.values():
            pipeline.close()


def comes_next(pipeline: Pipeline | None, batch: Batch, message: Message) -> list[str]:
    """Give the labels of the steps that a message of a batch comes to next: what is given up here is redriven there.

    A filter, or behind the last one the consumers that want it; empty: the way to the first filter. Where the
    configuration has the place no more, it is the one that the batch names.
    """
    if batch.job == "deliver" or not batch.step or pipeline is None:
        return [batch.step]
    try:
        behind = pipeline.filters_after(batch.step)
    except UnknownStepError:
        return [batch.step]
    if behind:
        return [behind[0].label]
    wanting = [step.label for step in pipeline.spec.consumers if step.when is None or step.when.matches(message)]
    return wanting or [batch.step]
