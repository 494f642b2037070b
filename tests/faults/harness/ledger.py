"""The ledger: every id that was answered 2xx against every id that each consumer saw or the dead letters hold."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as its sender knows it: `number` counts up within `key`; `wanted` is false where a filter is to drop it."""

    key: str
    number: int
    wanted: bool = True


@dataclass(slots=True)
class _Consumer:
    """What one consumer has seen."""

    taken: Counter[str] = field(default_factory=Counter)
    """How often each id was taken, and the sender told so."""
    unsure: set[str] = field(default_factory=set)
    """Ids that arrived while the answer broke off: the sender cannot know, a repeat of them is no duplicate."""
    order: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """By key, number and id of each message, in the order of their first arrivals."""
    waiting: set[str] = field(default_factory=set)
    """Ids that were accepted and have not arrived."""
    since: float = 0.0
    """When it last moved: an arrival, or the first message to wait for."""
    stall: float = 0.0
    first: dict[str, float] = field(default_factory=dict)
    """When each id arrived first."""
    times: list[float] = field(default_factory=list)
    """The same in order."""
    backlog: set[str] = field(default_factory=set)
    """Of what was waited for at `Ledger.mark`, that which still is."""
    caught_up: float | None = None
    """When the backlog was worked off."""

    def settle(self, message: str, now: float) -> None:
        """Wait for a message no longer."""
        self.waiting.discard(message)
        if message in self.backlog:
            self.backlog.discard(message)
            if not self.backlog:
                self.caught_up = now


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the accepted messages, counted; ids by consumer where something is wrong."""

    accepted: int
    delivered: int
    """Messages that arrived at every consumer that should have them."""
    buried: int
    lost: dict[str, list[str]]
    duplicates: dict[str, int]
    dropped_seen: dict[str, list[str]]
    """Messages that arrived though a filter was to drop them."""
    inversions: dict[str, int]
    stall: float
    recovery: float | None

    @property
    def lost_count(self) -> int:
        """How many messages are missing at one consumer or more."""
        return len({message for missing in self.lost.values() for message in missing})


class Ledger:
    """Keeps the account of one cell. Its methods may be called from any thread; times are monotonic seconds.

    What arrives without having been accepted (a request that broke off before its answer) is kept, and counts for nothing.
    """

    def __init__(self, consumers: Iterable[str], ordered: Collection[str] = ()) -> None:
        self._lock = threading.Lock()
        self._ordered = set(ordered)
        self._accepted: dict[str, Sent] = {}
        self._consumers = {name: _Consumer() for name in consumers}
        self._buried: dict[str, set[str]] = {name: set() for name in self._consumers}
        self._marked: float | None = None
        self._began: dict[str, float] = {}

    def accept(self, ids: Sequence[str], sent: Sequence[Sent], began: float | None = None) -> None:
        """Note the ids of one answer of 2xx, with what was sent for each, by a request that began then."""
        now = monotonic()
        began = now if began is None else began
        with self._lock:
            for message, one in zip(ids, sent, strict=True):
                self._accepted[message] = one
                self._began[message] = began
                if not one.wanted:
                    continue
                for consumer in self._consumers.values():
                    if message in consumer.taken or message in consumer.unsure:
                        continue
                    if not consumer.waiting:
                        consumer.since = now
                    consumer.waiting.add(message)

    def arrive(self, name: str, message: str, key: str = "", number: int = 0, *, sure: bool = True) -> None:
        """Note that a consumer has a message; not `sure` where the sender cannot know that."""
        now = monotonic()
        with self._lock:
            consumer = self._consumers[name]
            fresh = message not in consumer.taken and message not in consumer.unsure
            if sure:
                consumer.taken[message] += 1
            else:
                consumer.unsure.add(message)
            if not fresh:
                return
            consumer.first[message] = now
            consumer.order.setdefault(key, []).append((number, message))
            consumer.times.append(now)
            if consumer.waiting:
                consumer.stall = max(consumer.stall, now - consumer.since)
            consumer.since = now
            consumer.settle(message, now)

    def bury(self, letters: Iterable[tuple[str, str]]) -> None:
        """Note dead letters, as pairs of id and step; one of a step that is no consumer counts for all of them."""
        now = monotonic()
        with self._lock:
            for message, step in letters:
                for name in [step] if step in self._consumers else self._consumers:
                    self._buried[name].add(message)
                    self._consumers[name].settle(message, now)

    def under_way(self, within: float = 2.0) -> int:
        """Give how many messages the busiest consumer waits for, or took within so many seconds: what a kill may repeat."""
        start = monotonic() - within
        with self._lock:
            return max(
                len(consumer.waiting) + len(consumer.times) - bisect_left(consumer.times, start)
                for consumer in self._consumers.values()
            )

    def latencies(self, name: str, start: float, end: float) -> list[float]:
        """Give the seconds from request to first arrival, sorted, of what was accepted by requests begun between two moments."""
        with self._lock:
            first = self._consumers[name].first
            return sorted(
                first[message] - when for message, when in self._began.items() if start <= when < end and message in first
            )

    def mark(self) -> None:
        """Note that the fault is over: recovery is counted from here."""
        with self._lock:
            self._marked = monotonic()
            for consumer in self._consumers.values():
                consumer.backlog = set(consumer.waiting)
                consumer.caught_up = None

    @property
    def accepted(self) -> int:
        """How many messages were accepted."""
        return len(self._accepted)

    @property
    def outstanding(self) -> int:
        """How many deliveries are still to come."""
        with self._lock:
            return sum(len(consumer.waiting) for consumer in self._consumers.values())

    @property
    def last_move(self) -> float:
        """When something last arrived anywhere."""
        with self._lock:
            return max(consumer.since for consumer in self._consumers.values())

    def verdict(self, *, apart_from: Collection[str] = ()) -> Verdict:
        """Give the account; stall and recovery leave out the consumers that the fault itself held up."""
        now = monotonic()
        with self._lock:
            wanted = {message for message, sent in self._accepted.items() if sent.wanted}
            dropped = self._accepted.keys() - wanted
            lost = {name: sorted(consumer.waiting) for name, consumer in self._consumers.items() if consumer.waiting}
            missing = set().union(*lost.values())
            buried = set().union(*self._buried.values()) & self._accepted.keys()
            others = [consumer for name, consumer in self._consumers.items() if name not in apart_from]
            return Verdict(
                accepted=len(self._accepted),
                delivered=len(wanted - missing - buried),
                buried=len(buried),
                lost=lost,
                duplicates={name: self._repeats(consumer) for name, consumer in self._consumers.items()},
                dropped_seen={
                    name: sorted(seen) for name, consumer in self._consumers.items() if (seen := dropped & consumer.taken.keys())
                },
                inversions={name: self._inversions(self._consumers[name]) for name in sorted(self._ordered)},
                stall=max((max(one.stall, now - one.since if one.waiting else 0.0) for one in others), default=0.0),
                recovery=self._recovery(apart_from),
            )

    def _repeats(self, consumer: _Consumer) -> int:
        return sum(count - 1 for message, count in consumer.taken.items() if count > 1 and message in self._accepted)

    def _inversions(self, consumer: _Consumer) -> int:
        """Count the messages that arrived after a later one of their key."""
        found = 0
        for arrivals in consumer.order.values():
            highest = -1
            for number, message in arrivals:
                if message in self._accepted:
                    found += number < highest
                    highest = max(highest, number)
        return found

    def _recovery(self, apart_from: Collection[str]) -> float | None:
        """Give the seconds from the mark until all that was waited for then had arrived; None where nothing was."""
        if self._marked is None:
            return None
        others = [consumer for name, consumer in self._consumers.items() if name not in apart_from]
        ends = [monotonic() if one.backlog else one.caught_up for one in others]
        return max((end - self._marked for end in ends if end is not None), default=None)
