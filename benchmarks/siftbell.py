"""Siftbell as the benchmarks use it: the pipeline that is measured, and a filled queue."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.work import FILTERS, alert
from pipeline.engine.assembly import load_configuration
from pipeline.engine.batch import Batch
from pipeline.engine.pipeline import Pipeline, Pipelines
from pipeline.engine.routes import incoming
from pipeline.message import Message
from pipeline.queue.publishing import CeleryQueue
from pipeline.settings import Settings

PIPELINE = "bench"


def pipeline_file(*consumers: str, filters: str = FILTERS, name: str = PIPELINE) -> str:
    """Give a pipeline's file: the producer `http`, the three filters, and these consumers, each as one line of YAML."""
    return f"name: {name}\nproducers:\n  - http: {{}}\n{filters}consumers:\n" + "".join(f"  - {one}\n" for one in consumers)


class Filler:
    """Fills the queue of a tree as its intake would, in batches of 500. Use it as a context manager."""

    def __init__(self, place: Path, environment: Mapping[str, str]) -> None:
        self._settings = settings(place, environment)
        self._pipelines = Pipelines(load_configuration(self._settings))
        self._queue = CeleryQueue.from_settings(self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._queue.close()
        self._pipelines.close()

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that is measured."""
        return self._pipelines[PIPELINE]

    def batches(self, count: int) -> Sequence[Batch]:
        """Make messages, batched for the queue."""
        return incoming(self.pipeline, [as_message(number) for number in range(count)])

    def publish(self, batches: Sequence[Batch]) -> None:
        """Put them on the queue, confirmed."""
        self._queue.publish(batches)


def settings(place: Path, environment: Mapping[str, str]) -> Settings:
    """Give the settings that `Workplace.tree` gives to a tree in this place."""
    told = {"SIFTBELL_CONFIG": str(place / "configs"), "SIFTBELL_DATA": str(place / "data"), **environment}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        return Settings()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def as_message(number: int) -> Message:
    """Give an alert as the producer `http` would make it."""
    data = alert(number)
    return Message(source="bench", **data)
