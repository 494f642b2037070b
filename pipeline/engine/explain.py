"""What became of a message: its records, what is held of it and its dead letters, put together for a person.

Nothing is written for this when a message is accepted: when that was is read from its id, and a consumer without a record is
one whose queue still has the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from pipeline.by import KEY_OF_ALL
from pipeline.engine.batch import DELIVER_QUEUE, PROCESS_QUEUE
from pipeline.engine.explanation import Entry, Explanation, State, answer
from pipeline.message import Message
from pipeline.spec.model import ConsumerStep, FilterStep, PipelineSpec
from pipeline.store import DeadLetter, Held, Outcome, Record, Store, Why
from pipeline.store.circuits import PARKED
from pipeline.store.leaving import LEFT
from pipeline.store.places import Standing
from pipeline.store.results import Result
from pipeline.store.rows import WINDOWS, CircuitState

MOST_PARTS: Final = 20
"""Messages that went on in place of another one, whose own story is told."""
DEEPEST: Final = 5
"""How often a message may have become another one until the story ends."""
MOST_ORIGINS: Final = 100
NOT_TRIED: Final = "not tried: "
"""How the reason of a `NotTriedError` begins."""
_ENDS: Final = frozenset({State.DROPPED, State.REPLACED, State.BURIED, State.HELD, State.WAITING})
_Place = tuple[str, str]


def explain(store: Store, specs: Iterable[PipelineSpec], message_id: str, now: datetime) -> Explanation | None:
    """Tell what became of a message; None where nothing is known of it. Raises StoreAway."""
    found = _Explainer(store, specs, now).explain(message_id)
    if found is None or (times := _same_time(message_id)) is None:
        return found
    return replace(found, origins=tuple(store.origins(message_id, *times, limit=MOST_ORIGINS)))


def ids_like(store: Store, prefix: str, limit: int) -> list[str]:
    """Give the ids of messages that begin like this, in order; those that are only on the spool are not found."""
    digits = prefix.lower().replace("-", "")
    if not digits or len(digits) > 32 or set(digits) - set("0123456789abcdef"):
        return []
    first, last = (str(UUID(digits.ljust(32, fill))) for fill in "0f")
    return store.ids_between(first, last, limit)


def accepted_at(message_id: str) -> datetime | None:
    """Give the time in a message's id; None where it is not a UUIDv7."""
    try:
        found = UUID(message_id)
    except ValueError:
        return None
    return datetime.fromtimestamp((found.int >> 80) / 1000, UTC) if found.version == 7 else None


class _Explainer:
    def __init__(self, store: Store, specs: Iterable[PipelineSpec], now: datetime) -> None:
        self._store = store
        self._specs = {spec.name: spec for spec in specs}
        self._now = now
        self._circuits = {(one.pipeline, one.step): one for one in store.circuits() if one.state is not CircuitState.CLOSED}

    def explain(self, message_id: str, of: str = "", depth: int = 0) -> Explanation | None:
        """Tell what became of a message; `of` is the pipeline in which it came in place of another one."""
        records = self._store.history(message_id)
        standings = self._standings(message_id, records)
        held = [one.held for one in standings]
        letters = self._store.dead_letter(message_id)
        rows: list[Record | Held | DeadLetter] = [*records, *held, *letters]
        known = {row.pipeline for row in rows} | ({of} if of else set())
        if not known:
            return None
        waiting = {(one.held.pipeline, one.held.step): one for one in standings}
        entries = self._entries(records, waiting, {(d.pipeline, d.step): d for d in letters})
        entries = self._with_results(message_id, entries)
        entries.sort(key=lambda entry: (entry.at or self._now, entry.kind == "consumer"))
        for name in sorted(known & set(self._specs)):
            entries += _missing(self._specs[name], [entry for entry in entries if entry.pipeline == name])
        became = [] if depth == DEEPEST else self._became(records, depth)
        message: Message | None = next((row.message for row in rows if not isinstance(row, Record)), None)
        return Explanation(
            id=message_id,
            answer=answer(entries, became, self._now),
            accepted=accepted_at(message_id),
            title=message.title if message else "",
            source=message.source if message else "",
            entries=tuple(entries),
            became=tuple(became),
            records=tuple(records),
        )

    def _with_results(self, message_id: str, entries: list[Entry]) -> list[Entry]:
        """Add what the other sides said later of their deliveries."""
        told: dict[_Place, list[Result]] = {}
        for result in self._store.results(message_id):
            told.setdefault((result.pipeline, result.step), []).append(result)
        return [replace(entry, results=tuple(told.get((entry.pipeline, entry.step), ()))) for entry in entries]

    def _standings(self, message_id: str, records: Sequence[Record]) -> list[Standing]:
        """Look wherever it can wait: at each step that has a record, or is configured, and in the spool."""
        places = {(record.pipeline, record.step) for record in records}
        for spec in self._specs.values():
            places |= {(spec.name, step.label) for step in (*spec.filters, *spec.consumers)}
        places |= {(name, "") for name in {*self._specs, *(record.pipeline for record in records)}}
        return self._store.standings(message_id, places)

    def _became(self, records: Sequence[Record], depth: int) -> list[Explanation]:
        found = []
        for record in records:
            if record.outcome is Outcome.REPLACED:
                parts = (self.explain(part, record.pipeline, depth + 1) for part in record.became[:MOST_PARTS])
                found += [part for part in parts if part is not None]
        return found

    def _entries(
        self, records: Sequence[Record], waiting: Mapping[_Place, Standing], letters: Mapping[_Place, DeadLetter]
    ) -> list[Entry]:
        known = {(record.pipeline, record.step) for record in records}
        found = [
            self._recorded(record, waiting.get((record.pipeline, record.step)), letters.get((record.pipeline, record.step)))
            for record in records
        ]
        found += [_waiting(self._step(*place), one) for place, one in waiting.items() if place not in known]
        found = [self._parked(entry, waiting.get((entry.pipeline, entry.step))) for entry in found]
        found += [_buried(self._step(*place), letter.record(), letter) for place, letter in letters.items() if place not in known]
        return found

    def _recorded(self, record: Record, standing: Standing | None, letter: DeadLetter | None) -> Entry:
        entry = replace(self._step(record.pipeline, record.step), at=record.at, reason=record.reason, became=record.became)
        if record.outcome is Outcome.BURIED:
            return _buried(entry, record, letter)
        if record.outcome is Outcome.HELD:
            return _held_entry(entry, record, standing)
        attempts = record.attempt if record.outcome is Outcome.DELIVERED else 0
        return replace(entry, state=State(record.outcome.value), attempts=attempts, since=record.since)

    def _parked(self, entry: Entry, standing: Standing | None) -> Entry:
        """Tell of a message that waits for its circuit to close when that is tried, not when it would come back at the latest."""
        circuit = self._circuits.get((entry.pipeline, entry.step))
        if circuit is None or standing is None or standing.held.why is not Why.RETRY or standing.held.key != PARKED:
            return entry
        return replace(entry, due=circuit.until, open_since=circuit.since)

    def _step(self, pipeline: str, label: str) -> Entry:
        """Give an entry that says as yet only which step it is about."""
        spec = self._specs.get(pipeline)
        steps: Sequence[FilterStep | ConsumerStep] = (*spec.filters, *spec.consumers) if spec else ()
        blank = Entry(pipeline=pipeline, step=label, kind="gone" if label else "intake", state=State.NOTHING)
        step = next((step for step in steps if step.label == label), None)
        return replace(blank, kind=step.kind, plugin=step.plugin, place=str(step.position)) if step else blank


def _held_entry(entry: Entry, record: Record, standing: Standing | None) -> Entry:
    """Tell of a message that waited when it was last decided about; without a held row it has gone on since."""
    tried = replace(entry, attempts=record.attempt, since=record.since)
    if standing is None and entry.kind == "filter":
        return replace(tried, state=State.PASSED, attempts=0, reason=f"it waited here ({record.reason}) and went on")
    if standing is None:
        return replace(tried, state=State.WAITING, reason=f"on the queue for another attempt; before: {record.reason}")
    held = standing.held
    if held.why in WINDOWS or standing.ahead:
        return replace(_waiting(entry, standing), at=record.at)
    state = State.WAITING if record.reason.startswith(NOT_TRIED) and not record.attempt else State.HELD
    return replace(tried, state=state, due=held.due)


def _waiting(entry: Entry, standing: Standing) -> Entry:
    held = standing.held
    of_key = f"of key '{held.key}'" if held.key else "without a key"
    reasons = {
        Why.SPOOL: "the broker was away: it is in the store, and goes on the queue when the broker is back",
        Why.WINDOW: f"in the window of '{held.key}'" if held.key not in ("", KEY_OF_ALL) else "in a window",
        Why.KEPT: f"what the filter keeps for '{held.key}'" if held.key not in ("", KEY_OF_ALL) else "what the filter keeps",
        Why.FILTER: "to be filtered from this step on",
        Why.RETRY: "to be delivered",
        Why.ORDER: f"in line behind {standing.ahead} more {of_key}, the first is {standing.first}"
        if standing.ahead
        else f"the first in line {of_key}",
    }
    return replace(
        entry, state=State.WAITING, at=None, attempts=0, due=None if standing.ahead else held.due, reason=reasons[held.why]
    )


def _buried(entry: Entry, record: Record, letter: DeadLetter | None) -> Entry:
    hint = f"siftbell dead-letters redrive {record.message_id}" if letter else ""
    left = letter is None and LEFT not in record.reason
    reason = f"{record.reason} (no longer among the dead letters)" if left else record.reason
    found = replace(entry, state=State.BURIED, at=record.at, attempts=record.attempt, since=record.since)
    return replace(found, reason=reason, hint=hint)


def _missing(spec: PipelineSpec, entries: Sequence[Entry]) -> list[Entry]:
    """Give an entry for each consumer of a pipeline that nothing is known of, where the message may still come to it."""
    seen = {entry.step for entry in entries}
    queued = any(entry.kind == "consumer" for entry in entries)
    if not queued and any(entry.state in _ENDS for entry in entries):
        return []
    incoming = (spec.filters[0].queue if spec.filters else None) or PROCESS_QUEUE
    found = []
    for step in spec.consumers:
        if step.label not in seen:
            out = DELIVER_QUEUE.format(step.queue)
            where = f"on the queue {out}, or newer than the message" if queued else f"on the queue {incoming} or {out}"
            found.append(
                Entry(
                    pipeline=spec.name,
                    step=step.label,
                    kind="consumer",
                    plugin=step.plugin,
                    place=str(step.position),
                    state=State.NOTHING,
                    reason=where,
                )
            )
    return found


def _same_time(message_id: str) -> tuple[str, str] | None:
    """Give the first and last id of the millisecond that a UUIDv7 bears: the parts of a message have their parent's."""
    if accepted_at(message_id) is None:
        return None
    time = UUID(message_id).int >> 80 << 80
    return str(UUID(int=time)), str(UUID(int=time | (1 << 80) - 1))
