"""Listening producers: each runs in a thread of its own, and is called again whenever it fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import structlog

from pipeline.engine.pipeline import Pipeline
from pipeline.engine.polls import LEASE, kept
from pipeline.engine.runner import Runner
from pipeline.message import Message
from pipeline.plugin import ListeningProducer, Publish
from pipeline.spec.model import ProducerStep

log = structlog.get_logger()

PAUSE: Final = 5.0
"""Seconds before a listening producer that failed is called again."""
STOPS_WITHIN: Final = 10.0
"""Seconds that all of them have to return when it is time to stop."""


class Listeners:
    """The listening producers of one clock.

    Any number of clocks may listen, as the other side gives each message to one; where it does not, the producer is `alone`.
    """

    def __init__(self, runner: Runner, stopping: threading.Event, *, owner: str) -> None:
        self._runner = runner
        self._owner = owner
        self._stopping = stopping
        self._threads = [
            threading.Thread(
                target=self._listen, args=(pipeline, step), name=f"listen {pipeline.spec.name}/{step.label}", daemon=True
            )
            for pipeline in runner.pipelines
            for step in pipeline.spec.producers
            if step.listens
        ]

    def start(self) -> None:
        """Let them listen until `stopping` is set."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until they have returned; what is not back in time ends with the process."""
        for thread in self._threads:
            thread.join(timeout=STOPS_WITHIN / len(self._threads))

    def _listen(self, pipeline: Pipeline, step: ProducerStep) -> None:
        publish = _Publishing(self._runner, pipeline, step.label)
        while not self._stopping.is_set():
            try:
                producer = pipeline.plugin(step)
                assert isinstance(producer, ListeningProducer)
                if producer.alone:
                    self._listen_alone(producer, publish, (pipeline.spec.name, step.label))
                else:
                    producer.listen(publish, self._stopping.is_set)
            except BaseException as error:  # noqa: BLE001 - it is called again; what it had not acknowledged comes again
                text = pipeline.mask(f"{type(error).__name__}: {error}")
                log.warning("listening failed", pipeline=pipeline.spec.name, producer=step.label, error=text)
            self._stopping.wait(PAUSE)

    def _listen_alone(self, producer: ListeningProducer[Any], publish: Publish, place: tuple[str, str]) -> None:
        """Let it listen where no other clock does, for as long as the lease on that is this clock's."""
        now, store = self._runner.now(), self._runner.store
        if not store.claim_occurrence(*place, now, self._owner, LEASE, now=now):
            return
        try:
            with kept(self._runner, place, self._owner) as lost:
                producer.listen(publish, lambda: self._stopping.is_set() or lost.is_set())
        finally:
            store.finish_occurrence(*place, now, self._owner)


class _Publishing:
    """What a listening producer is given as `publish`."""

    def __init__(self, runner: Runner, pipeline: Pipeline, producer: str) -> None:
        self._runner, self._pipeline, self._producer = runner, pipeline, producer

    def __call__(self, messages: Sequence[Message], /) -> None:
        self._runner.accept(self._pipeline, self._producer, messages)

    def bury(self, raw: bytes, reason: str, /, *, message_id: str = "") -> None:
        self._runner.bury_raw(self._pipeline, self._producer, raw, reason, message_id=message_id)
