"""How the consumers are, as a person wants to see it: each with its circuit, and what waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pipeline.engine.circuit import Circuits
from pipeline.spec.model import ConsumerStep, PipelineSpec
from pipeline.store import Store, Why
from pipeline.store.rows import Circuit, CircuitState

_FOR_CONSUMERS: Final = frozenset({Why.RETRY, Why.ORDER})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStatus:
    """A consumer of a pipeline; `since`, `error` and `next_try` are None where they say nothing."""

    pipeline: str
    consumer: str
    plugin: str
    when: str | None
    """Its condition."""
    circuit: CircuitState
    since: datetime | None
    """When it was opened; closed: when it was closed again."""
    failures: int
    """Temporary errors since the last success."""
    error: str | None
    """The last temporary error since the last success."""
    next_try: datetime | None
    """When a message tries an open circuit's service."""
    held: int
    """Messages that wait in the store for this consumer: for another attempt, its circuit, its rate or their turn in line."""
    rate: str | None


def statuses(specs: Iterable[PipelineSpec], store: Store) -> list[ConsumerStatus]:
    """Give the consumers of all pipelines, in the order of the configuration."""
    known = {(circuit.pipeline, circuit.step): circuit for circuit in store.circuits()}
    held: Counter[tuple[str, str]] = Counter()
    for (pipeline, label, why), count in store.held_counts().items():
        if why in _FOR_CONSUMERS:
            held[pipeline, label] += count
    return [
        _status(spec.name, step, known.get((spec.name, step.label)), held[spec.name, step.label])
        for spec in specs
        for step in spec.consumers
    ]


def close_circuit(store: Store, pipeline: str, consumer: str) -> bool:
    """Close a consumer's circuit at once, as a success would; false where it was closed."""
    before = store.circuit(pipeline, consumer)
    Circuits(store, lambda: datetime.now(UTC)).succeeded(pipeline, consumer)
    return before is not None and before.state is not CircuitState.CLOSED


def _status(pipeline: str, step: ConsumerStep, circuit: Circuit | None, held: int) -> ConsumerStatus:
    state = circuit.state if circuit else CircuitState.CLOSED
    return ConsumerStatus(
        pipeline=pipeline,
        consumer=step.label,
        plugin=step.plugin,
        when=step.when.text if step.when else None,
        circuit=state,
        since=circuit.since if circuit and (circuit.openings or state is not CircuitState.CLOSED) else None,
        failures=circuit.failures if circuit else 0,
        error=circuit.error if circuit and circuit.failures else None,
        next_try=circuit.until if circuit and state is CircuitState.OPEN else None,
        held=held,
        rate=str(step.rate) if step.rate else None,
    )
