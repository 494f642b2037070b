"""The fate of a message: whether it reached anybody, as far as the records can tell.

A filter that silences repeats asks this of the message it let pass: what reached nobody must silence nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from pipeline.engine.decisions import Now
from pipeline.engine.pipeline import Pipeline
from pipeline.spec.model import PipelineSpec
from pipeline.store import Outcome, Record, Store

MOST_FOLLOWED: Final = 1000
"""Messages that went on in place of others, and are looked at to answer for one."""
MOST_KNOWN: Final = 10_000
"""Answers that a process keeps."""
STILL_SO: Final = timedelta(seconds=1)
"""How long an answer is given again that may become another one."""
_ENDED: Final = frozenset({Outcome.DROPPED, Outcome.BURIED})


class _Fate(Enum):
    REACHED = auto()
    """A consumer has it: this stays so."""
    OPEN = auto()
    """It is on its way, it waits, or nothing is on record."""
    LOST = auto()
    """It has ended, and no consumer has it. Redriven, it is open again."""


class Fates:
    """What became of messages, by the records in the store. Safe with threads. Methods may raise `TemporaryError`."""

    def __init__(self, store: Store, now: Now) -> None:
        self._store = store
        self._now = now
        self._known: dict[tuple[str, str], tuple[_Fate, datetime]] = {}

    def lost(self, pipeline: Pipeline, message_id: str) -> bool:
        """Say whether a message has ended without reaching any consumer: it was dropped or buried, and all that it became.

        False while it is on its way, and where nothing is known of it. An answer may be as old as `STILL_SO`.
        """
        place, now = (pipeline.spec.name, message_id), self._now()
        fate, asked = self._known.get(place, (_Fate.OPEN, None))
        if asked is None or not (fate is _Fate.REACHED or asked <= now < asked + STILL_SO):
            fate = self._follow(pipeline.spec, message_id)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[place] = (fate, now)
        return fate is _Fate.LOST

    def _follow(self, spec: PipelineSpec, message_id: str) -> _Fate:
        """Look at a message, and at those that went on in its place: where one of them reached somebody, it did."""
        fate, generation, seen = _Fate.LOST, [message_id], {message_id}
        while generation:
            records = self._store.histories(spec.name, generation)
            became: list[str] = []
            for one in generation:
                found, others = _standing(spec, records.get(one, ()))
                if found is _Fate.REACHED:
                    return found
                if found is _Fate.OPEN:
                    fate = found
                became += others
            generation = [other for other in dict.fromkeys(became) if other not in seen][: MOST_FOLLOWED - len(seen)]
            seen.update(generation)
        return fate


def _standing(spec: PipelineSpec, records: Sequence[Record]) -> tuple[_Fate, Sequence[str]]:
    """Give how a message stands by itself, and the ids of those that went on in its place."""
    consumers = {step.label for step in spec.consumers}
    delivering = [record for record in records if record.step in consumers]
    if any(record.outcome is Outcome.DELIVERED for record in records):
        return _Fate.REACHED, ()
    if delivering:
        over = consumers == {record.step for record in delivering if record.outcome in _ENDED}
        return _Fate.LOST if over else _Fate.OPEN, ()
    if not records:
        return _Fate.OPEN, ()
    last = _furthest(spec, records)
    if last.outcome is Outcome.REPLACED and last.became:
        return _Fate.LOST, last.became
    return _Fate.LOST if last.outcome in _ENDED else _Fate.OPEN, ()


def _furthest(spec: PipelineSpec, records: Sequence[Record]) -> Record:
    """Give the decision of the step that is the furthest down: one before it may say that the message waited there.

    A step that the configuration does not have any more counts as the last, the way to the first filter as the first.
    """
    order = {step.label: index for index, step in enumerate(spec.filters)} | {"": -1}
    return max(records, key=lambda record: (order.get(record.step, len(order)), record.at))
