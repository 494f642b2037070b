"""The circuit of each consumer: a service that fails again and again is not called, but tried with one message now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from pipeline.engine.retry import NotTriedError, next_probe
from pipeline.errors import TemporaryError
from pipeline.spec.model import ConsumerStep, Retry
from pipeline.store import Store
from pipeline.store.circuits import PARKED
from pipeline.store.rows import Circuit, CircuitState, Claim
from pipeline.telemetry import CIRCUIT, CIRCUIT_CHANGES

log = structlog.get_logger()

THRESHOLD: Final = 5
"""A circuit opens after so many temporary errors without a success between them."""
CACHED: Final = timedelta(seconds=1)
"""For so long a process goes by what it last saw of a closed circuit."""
PROBE_LEASE: Final = timedelta(seconds=6)
"""When a worker dies while it tries a service, another may try it after this time."""
RENEWED: Final = 2.0
"""Seconds after which a worker that still tries renews its lease."""
WOKEN: Final = timedelta(seconds=5)
"""When the message that is to try a service has not done so for so long, another is sent."""
SHOWN: Final = timedelta(seconds=5)
"""Time between two looks at all circuits for the metric."""

Change = Callable[[Circuit], Circuit]


class Circuits:
    """The circuits of all consumers, as one process sees them; they are in the store, for all processes alike.

    A method that changes a circuit goes by what is stored at that moment: of two workers that want to try a service at
    once, one does. Each method may raise `TemporaryError` where the store is away.
    """

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._closed: dict[tuple[str, str], tuple[Circuit, datetime]] = {}
        self._shown: datetime | None = None
        self._woken: dict[tuple[str, str], tuple[int, datetime]] = {}

    def look(self, pipeline: str, step: str) -> Circuit:
        """Give a consumer's circuit; a closed one may be a second old."""
        known = self._closed.get((pipeline, step))
        if known is not None and timedelta(0) <= self._now() - known[1] < CACHED:
            return known[0]
        return self._read(pipeline, step)

    def probe(self, pipeline: str, step: str) -> bool:
        """Ask to be the one who tries an open circuit's service; true for one worker at a time."""
        won = False

        def half_opened(circuit: Circuit) -> Circuit:
            nonlocal won
            now = self._now()
            won = circuit.state is not CircuitState.CLOSED and circuit.until <= now
            return replace(circuit, state=CircuitState.HALF_OPEN, until=now + PROBE_LEASE) if won else circuit

        self._change(pipeline, step, half_opened)
        return won

    @contextmanager
    def probing(self, pipeline: str, step: str) -> Iterator[None]:
        """Keep the right to try while the service takes its time to answer."""
        done = threading.Event()

        def renewed(circuit: Circuit) -> Circuit:
            half_open = circuit.state is CircuitState.HALF_OPEN
            return replace(circuit, until=self._now() + PROBE_LEASE) if half_open else circuit

        def renew() -> None:
            while not done.wait(RENEWED):
                try:
                    self._change(pipeline, step, renewed)
                except TemporaryError as away:
                    log.warning("the right to try a consumer could not be renewed", pipeline=pipeline, step=step, error=str(away))

        thread = threading.Thread(target=renew, name="probe", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def put_off(self, pipeline: str, step: str, until: datetime) -> Circuit:
        """Give back the right to try, unused: the service is tried from `until` on."""

        def opened(circuit: Circuit) -> Circuit:
            half_open = circuit.state is CircuitState.HALF_OPEN
            return replace(circuit, state=CircuitState.OPEN, until=until) if half_open else circuit

        return self._change(pipeline, step, opened)

    def succeeded(self, pipeline: str, step: str) -> Circuit:
        """Note that the service works: its circuit closes, and what waits for it comes back."""
        return self._change(pipeline, step, lambda circuit: closed(circuit, self._now()))

    def failed(self, pipeline: str, step: str, failures: int, error: TemporaryError, text: str, retry: Retry) -> Circuit:
        """Note failures in a row, with the last one's (masked) text: enough of them open the circuit."""
        return self._change(
            pipeline, step, lambda circuit: counted(circuit, failures, error.retry_after, text, now=self._now(), retry=retry)
        )

    def recall_if_closed(self, pipeline: str, step: str) -> None:
        """Bring back what was held for an open circuit that was closed meanwhile: nobody else would before it is due."""
        if self._read(pipeline, step).state is CircuitState.CLOSED:
            self._store.recall(pipeline, step, self._now())

    def let_through(self, pipeline: str, step: ConsumerStep, claims: Sequence[Claim]) -> list[Claim]:
        """Give those of a clock's claims that go to their consumer now; the others wait on in the store.

        All of them where the circuit is closed. Where it is open: what is to be given up; and when it is time to try
        the service, one message, the oldest.
        """
        circuit, now = self.look(pipeline, step.label), self._now()
        if circuit.state is CircuitState.CLOSED:
            return list(claims)
        gone = now - step.retry.lasting
        known = self._store.records(pipeline, step.label, [claim.held.message.id for claim in claims])
        failing = {message_id for message_id, record in known.items() if record.since is not None and record.since <= gone}
        through = [claim for claim in claims if claim.held.message.id in failing]
        if circuit.until <= now:
            through = through or [min(claims, key=lambda claim: claim.held.message.id)]
        rows = {claim.row for claim in through}
        if rest := [claim for claim in claims if claim.row not in rows]:
            self._store.postpone(rest, parked_until(circuit, step.retry, now), gone=gone)
            self.recall_if_closed(pipeline, step.label)
        return through

    def wake(self) -> None:
        """Let a message be due for each service that it is time to try; for a clock, at every tick."""
        now = self._now()
        for circuit in self._store.circuits():
            place, version = (circuit.pipeline, circuit.step), circuit.version
            woken, when = self._woken.get(place, (0, now))
            again = woken != version or now - when >= WOKEN
            if circuit.state is not CircuitState.CLOSED and circuit.until <= now and again:
                self._store.wake(*place, now)
                self._woken[place] = (version, now)

    def show(self, consumers: Iterable[tuple[str, str]]) -> None:
        """Set the metric of these consumers' circuits, by pipeline and label; now and then is enough."""
        now = self._now()
        if self._shown is None or now - self._shown >= SHOWN:
            self._shown = now
            states = {(circuit.pipeline, circuit.step): circuit.state for circuit in self._store.circuits()}
            for place in consumers:
                CIRCUIT.labels(*place).set(list(CircuitState).index(states.get(place, CircuitState.CLOSED)))

    def _read(self, pipeline: str, step: str) -> Circuit:
        now = self._now()
        found = self._store.circuit(pipeline, step) or Circuit(pipeline=pipeline, step=step, since=now, until=now)
        self._note(found)
        return found

    def _note(self, circuit: Circuit) -> None:
        place = (circuit.pipeline, circuit.step)
        if circuit.state is CircuitState.CLOSED:
            self._closed[place] = (circuit, self._now())
        else:
            self._closed.pop(place, None)

    def _change(self, pipeline: str, step: str, change: Change) -> Circuit:
        while True:
            before = self._read(pipeline, step)
            after = change(before)
            if after is before:
                return before
            after = replace(after, version=before.version + 1)
            closing = after.state is CircuitState.CLOSED and before.state is not CircuitState.CLOSED
            if self._store.change_circuit(after, recall=self._now() if closing else None):
                self._note(after)
                _tell(before, after)
                return after


def counted(circuit: Circuit, failures: int, retry_after: float | None, text: str, *, now: datetime, retry: Retry) -> Circuit:
    """Give the circuit after failures in a row; one that somebody else has opened stays as it is."""
    if circuit.state is CircuitState.OPEN:
        return circuit
    total = circuit.failures + failures
    if circuit.state is CircuitState.CLOSED and total < THRESHOLD:
        return replace(circuit, failures=total, error=text)
    openings = circuit.openings + 1
    return replace(
        circuit,
        state=CircuitState.OPEN,
        failures=total,
        openings=openings,
        since=now if circuit.state is CircuitState.CLOSED else circuit.since,
        until=next_probe(openings, retry_after, now=now, retry=retry),
        error=text,
    )


def closed(circuit: Circuit, now: datetime) -> Circuit:
    """Give the circuit after a success."""
    if circuit.state is CircuitState.CLOSED:
        return replace(circuit, failures=0) if circuit.failures else circuit
    return replace(circuit, state=CircuitState.CLOSED, failures=0, openings=0, since=now, until=now)


def parked_until(circuit: Circuit, retry: Retry, now: datetime) -> datetime:
    """Say how long messages wait for an open circuit if nobody calls them back: that is what closing it does."""
    return max(circuit.until, now + retry.longest)


def not_tried(circuit: Circuit, retry: Retry, now: datetime) -> NotTriedError:
    """Say why a consumer was not called, for a message that waits until the circuit closes."""
    text = f"the circuit is open since {circuit.since:%Y-%m-%d %H:%M:%S} UTC: {circuit.error}"
    return NotTriedError(text, until=parked_until(circuit, retry, now), key=PARKED)


def _tell(before: Circuit, after: Circuit) -> None:
    """Count and log a transition."""
    if before.state is after.state:
        return
    CIRCUIT_CHANGES.labels(after.pipeline, after.step, after.state.value).inc()
    words = {"pipeline": after.pipeline, "step": after.step}
    until = after.until.isoformat(timespec="seconds")
    if after.state is CircuitState.CLOSED:
        log.info("the circuit closed: the consumer works again", **words)
    elif after.state is CircuitState.OPEN and before.state is CircuitState.CLOSED:
        log.warning("the circuit opened: the consumer is not called", **words, until=until, error=after.error)
    elif after.state is CircuitState.OPEN:
        log.info("the circuit stays open", **words, until=until, error=after.error)
