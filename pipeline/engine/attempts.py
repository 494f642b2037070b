"""One attempt at giving a batch to its consumer: as far as the circuit is closed, and at the pace of the consumer's rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from pipeline.engine.circuit import THRESHOLD, Circuits, not_tried
from pipeline.engine.delivery import Fuse, Outcomes, deliver
from pipeline.engine.pace import take_turns
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.retry import NotTriedError
from pipeline.errors import TemporaryError
from pipeline.memory import MemoryBackend
from pipeline.message import Message
from pipeline.plugin import Results
from pipeline.spec.model import ConsumerStep
from pipeline.store.rows import Circuit, CircuitState

log = structlog.get_logger()

MEMORY_PAUSE: Final = timedelta(seconds=1)
"""When a message is tried whose turn could not be asked for, as the memory was away."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes attempts, going by the circuits and rates that all workers share."""

    circuits: Circuits
    memory: MemoryBackend
    now: Callable[[], datetime]
    results: Callable[[str, str], Results]
    """Gives what a step notes of its deliveries by, from pipeline and label."""

    def make(self, pipeline: Pipeline, step: ConsumerStep, messages: Sequence[Message], *, again: int) -> Outcomes:
        """Give the messages to the consumer and tell what became of each; those not given are `NotTriedError`.

        The first `again` of them waited before. May raise `TemporaryError` where the store or the memory is away;
        then none was given.
        """
        return _Attempt(self, pipeline, step).make(messages, again)


class _Attempt:
    def __init__(self, shared: Attempts, pipeline: Pipeline, step: ConsumerStep) -> None:
        self._shared = shared
        self._circuits = shared.circuits
        self._pipeline = pipeline
        self._step = step
        self._place = (pipeline.spec.name, step.label)

    def make(self, messages: Sequence[Message], again: int) -> Outcomes:
        if self._step.render is None:
            return self._tried(messages, again)
        written, outcomes = self._written(messages)
        again = sum(message.id not in outcomes for message in messages[:again])
        return outcomes | (self._tried(written, again) if written else {})

    def _written(self, messages: Sequence[Message]) -> tuple[list[Message], Outcomes]:
        """Give the messages as the consumer gets them, and what hinders the others from being written."""
        written: list[Message] = []
        outcomes: Outcomes = {}
        for message in messages:
            try:
                written.append(self._step.written(message))
            except Exception as error:  # noqa: BLE001 - it is the outcome of this one message, as what the consumer raises
                outcomes[message.id] = error
        return written, outcomes

    def _tried(self, messages: Sequence[Message], again: int) -> Outcomes:
        circuit = self._circuits.look(*self._place)
        if circuit.state is CircuitState.CLOSED:
            return self._give(messages, again, circuit)
        if circuit.until <= self._shared.now() and self._circuits.probe(*self._place):
            return self._probe(messages, again)
        return _all(messages, self._not_tried(self._circuits.look(*self._place)))

    def _probe(self, messages: Sequence[Message], again: int) -> Outcomes:
        """Try the service with the first message; the others are given where that works."""
        first, *rest = messages
        with self._circuits.probing(*self._place):
            turns, waits = self._turns([first], 1)
            if waits:
                circuit = self._circuits.put_off(*self._place, waits[first.id].until or self._shared.now())
                return _all(messages, self._not_tried(circuit))
            fuse = Fuse(1)
            outcomes = self._call([first], fuse, turns)
        if not fuse.failures:
            fuse.answered = True  # an answer that is a refusal, or a bug of the plugin, says nothing against the service
        circuit = self._judge(fuse)
        if not rest:
            return outcomes
        if fuse.failures:
            return outcomes | _all(rest, self._not_tried(circuit))
        try:
            return outcomes | self._give(rest, max(0, again - 1), circuit)
        except TemporaryError as away:  # the first one was given: what became of it must be recorded
            return outcomes | _all(rest, NotTriedError(str(away), until=self._shared.now() + MEMORY_PAUSE, counts=False))

    def _give(self, messages: Sequence[Message], again: int, circuit: Circuit) -> Outcomes:
        turns, waits = self._turns(messages, again)
        now = [message for message in messages if message.id not in waits]
        outcomes: Outcomes = dict(waits)
        if not now:
            return outcomes
        fuse = Fuse(max(1, THRESHOLD - circuit.failures))
        outcomes |= self._call(now, fuse, turns)
        if fuse.failures or (fuse.answered and circuit.failures):
            circuit = self._judge(fuse)
        if not fuse.blown:
            return outcomes
        refusal = self._not_tried(circuit)
        left_out = (message for message in now if isinstance(outcomes[message.id], NotTriedError))
        return outcomes | _all(list(left_out), refusal)

    def _not_tried(self, circuit: Circuit) -> NotTriedError:
        now = self._shared.now()
        if circuit.state is CircuitState.CLOSED:  # somebody else had a success meanwhile, or the store is away
            return NotTriedError("the calls before it failed", until=now + timedelta(seconds=1))
        return not_tried(circuit, self._step.retry, now)

    def _turns(self, messages: Sequence[Message], again: int) -> tuple[dict[str, float], dict[str, NotTriedError]]:
        return take_turns(self._shared.memory, self._place[0], self._step, messages, again=again, now=self._shared.now())

    def _call(self, messages: Sequence[Message], fuse: Fuse, turns: dict[str, float]) -> Outcomes:
        try:
            consumer = self._pipeline.consumer_plugin(
                self._step, self._shared.memory.scoped(*self._place), self._shared.results(*self._place)
            )
        except Exception as error:  # noqa: BLE001 - what hinders a plugin from opening may pass, and its messages wait for that
            shut = TemporaryError(f"the consumer could not be opened: {type(error).__name__}: {error}")
            for _ in range(THRESHOLD):
                fuse.note(shut)
            return _all(messages, shut)
        return deliver(consumer, messages, concurrency=self._step.concurrency, fuse=fuse, turns=turns)

    def _judge(self, fuse: Fuse) -> Circuit:
        """Tell the circuit what the calls showed; it must not hinder what they did from being recorded."""
        try:
            circuit = None
            if fuse.answered:
                circuit = self._circuits.succeeded(*self._place)
            if fuse.failures and fuse.last is not None:
                text = self._pipeline.mask(str(fuse.last))
                circuit = self._circuits.failed(*self._place, fuse.failures, fuse.last, text, self._step.retry)
        except TemporaryError as away:
            log.warning("a circuit could not be changed", pipeline=self._place[0], consumer=self._place[1], error=str(away))
            circuit = None
        now = self._shared.now()
        return circuit or Circuit(pipeline=self._place[0], step=self._place[1], since=now, until=now)


def _all(messages: Sequence[Message], error: Exception) -> Outcomes:
    return dict.fromkeys((message.id for message in messages), error)
