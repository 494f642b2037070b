"""How messages ended at each consumer of their pipeline, as far as the records of a store can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import attrgetter
from typing import Final

from pipeline.spec.model import PipelineSpec
from pipeline.store import Outcome, Record, Store

BY_WHEN: Final = "by when: "
"""How the reason begins where a consumer was not to get a message."""
DEEPEST: Final = 20
"""How often a message may have become another one until it is followed no further."""


class State(StrEnum):
    """How a message ended at a consumer."""

    DELIVERED = "delivered"
    TOGETHER = "delivered with others"
    """What told of it told of other messages as well."""
    DROPPED = "dropped"
    WAITING = "waiting"
    """A filter lets it wait: in a window, or as the filter failed for a while."""
    BURIED = "buried"
    """A filter failed with it for good."""
    FAILED = "failed"
    """The consumer was given it and failed: it is tried again, or was buried."""
    NOTHING = "no record"
    """There is no record of it."""


TOLD: Final = frozenset({State.DELIVERED, State.TOGETHER})
UNTOLD: Final = frozenset({State.DROPPED, State.BURIED, State.NOTHING})
_SPEAKS: Final = (State.DELIVERED, State.FAILED, State.WAITING, State.BURIED, State.DROPPED, State.NOTHING)
"""Of several messages that one became, the one of the first of these states speaks for it."""
_AT_CONSUMER: Final = {
    Outcome.DELIVERED: State.DELIVERED,
    Outcome.DROPPED: State.DROPPED,
    Outcome.HELD: State.FAILED,
    Outcome.BURIED: State.FAILED,
}
_AT_FILTER: Final = {Outcome.DROPPED: State.DROPPED, Outcome.BURIED: State.BURIED, Outcome.HELD: State.WAITING}


@dataclass(frozen=True, slots=True)
class End:
    """How a message ended at a consumer, by which step, and why."""

    state: State
    step: str = ""
    reason: str = ""
    told_by: tuple[str, ...] = ()
    """The ids of the messages that the consumer took: this one, or those that went on in its place."""
    others: int = 0
    """How many other messages these told of."""

    @property
    def place(self) -> str:
        """The file, line and column that the reason ends with; empty where it names none."""
        head, _, place = self.reason.rpartition(" at ")
        return place if head.startswith("by ") else ""


class Ends:
    """How messages of a pipeline ended. `consumers` are those of its spec, and those that the records tell of besides."""

    def __init__(self, store: Store, spec: PipelineSpec, message_ids: Sequence[str]) -> None:
        self._ids = message_ids
        self._records = _followed(store, spec.name, message_ids)
        filters = {step.label for step in spec.filters}
        told_of = {record.step for some in self._records.values() for record in some if _is_of_consumer(record)}
        self.consumers = list(dict.fromkeys([*(step.label for step in spec.consumers), *sorted(told_of - filters)]))

    def known(self, message_id: str) -> bool:
        """Say whether there is a record of a message: one that has none is on the queue, or its records are purged."""
        return message_id in self._records

    def at(self, consumer: str) -> dict[str, End]:
        """Give how all messages ended at a consumer, by message id."""
        ends = {message_id: self._end(consumer, message_id, frozenset()) for message_id in self._ids}
        told = Counter(one for end in ends.values() for one in end.told_by)
        return {message_id: _shared(end, told) for message_id, end in ends.items()}

    def _end(self, consumer: str, message_id: str, seen: frozenset[str]) -> End:
        records = self._records.get(message_id, ())
        behind_filters = [record for record in records if record.step in self.consumers]
        if (own := next((record for record in behind_filters if record.step == consumer), None)) is not None:
            told_by = (message_id,) if own.outcome is Outcome.DELIVERED else ()
            return End(_AT_CONSUMER.get(own.outcome, State.NOTHING), own.step, own.reason, told_by)
        seen |= {message_id}
        became = dict.fromkeys(other for record in records for other in record.became if other not in seen)
        parts = [self._end(consumer, other, seen) for other in became]
        if parts:
            speaks = min(parts, key=lambda part: _SPEAKS.index(part.state))
            if speaks.state is not State.NOTHING:
                return replace(speaks, told_by=tuple(dict.fromkeys(one for part in parts for one in part.told_by)))
        if behind_filters:  # what a filter held of it before says nothing
            return End(State.NOTHING)
        last = max((record for record in records if record.outcome in _AT_FILTER), key=attrgetter("at"), default=None)
        return End(State.NOTHING) if last is None else End(_AT_FILTER[last.outcome], last.step, last.reason)


def _followed(store: Store, pipeline: str, message_ids: Sequence[str]) -> Mapping[str, Sequence[Record]]:
    """Give the records of messages by id, and those of the messages that went on in their place."""
    found: dict[str, Sequence[Record]] = {}
    asked: Iterable[str] = message_ids
    for _ in range(DEEPEST):
        news = store.histories(pipeline, sorted(asked))
        found |= news
        asked = {other for some in news.values() for record in some for other in record.became} - found.keys()
        if not asked:
            break
    return found


def _is_of_consumer(record: Record) -> bool:
    return record.outcome is Outcome.DELIVERED or record.reason.startswith(BY_WHEN)


def _shared(end: End, told: Mapping[str, int]) -> End:
    """Say of a message that was told of with others how many these were."""
    if not end.told_by or (others := min(told[one] for one in end.told_by) - 1) < 1:
        return end
    return replace(end, state=State.TOGETHER, others=others)
