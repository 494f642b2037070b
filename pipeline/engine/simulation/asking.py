"""How polling producers are asked in a simulation: by their schedules, one after the other, and nobody competes for it.

A clock asks each in a thread of its own, under a claim that it renews. Here threads would make chance of what has an order, and
most of the time of a test in which something is watched over days would be theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pipeline.engine.pipeline import Pipeline
from pipeline.engine.polls import Polls
from pipeline.engine.runner import Runner
from pipeline.engine.simulation.stage import Outside
from pipeline.spec.model import PipelineSpec, ProducerStep


class NoPolls(Polls):
    """A clock's polls, where somebody else asks."""

    def start_due(self, now: datetime) -> None:
        """Ask nobody."""


class Asking:
    """Who is to be asked when; it outlives the simulation's processes, as what they note of it would."""

    def __init__(self, spec: PipelineSpec, real: set[str], outside: Outside, start: datetime) -> None:
        self._steps = [step for step in spec.producers if step.polls and step.schedule]
        self._real = real
        self._outside = outside
        self._last = {step.label: start for step in self._steps}
        self._fetched: dict[str, int] = {}
        self.failures: list[tuple[datetime, str, str]] = []
        """When asking a producer failed, which one, and how."""

    @property
    def unasked(self) -> bool:
        """Whether somebody has something and was not asked for it yet."""
        return any(self._has_news(step) for step in self._steps)

    def next(self) -> datetime | None:
        """Give when a producer is asked next that may have something to tell."""
        return min((self._due(step) for step in self._steps if step.label in self._real or self._has_news(step)), default=None)

    def news(self, producer: str, now: datetime) -> None:
        """Note that a producer has something from now on: the times at which it was not asked before are over."""
        self._last[producer] = now

    def ask(self, runner: Runner, pipeline: Pipeline, now: datetime) -> None:
        """Ask who is due; what a producer raises is noted, and it is asked again at its next time."""
        for step in list(self._due_now(now)):
            try:
                runner.poll(pipeline, step.label)
            except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its own business, as with a clock
                self.failures.append((now, step.label, pipeline.mask(f"{type(error).__name__}: {error}")))
            self._last[step.label] = now
            self._fetched[step.label] = len(self._outside.given.get(step.label, ()))

    def _due_now(self, now: datetime) -> Iterator[ProducerStep]:
        for step in self._steps:
            if (step.label in self._real or self._has_news(step)) and self._due(step) <= now:
                yield step

    def _due(self, step: ProducerStep) -> datetime:
        assert step.schedule is not None
        return step.schedule.after(self._last[step.label])

    def _has_news(self, step: ProducerStep) -> bool:
        return len(self._outside.given.get(step.label, ())) > self._fetched.get(step.label, 0)
