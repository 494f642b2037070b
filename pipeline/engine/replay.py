"""The replay: what a pipeline would do with the messages that it kept, against what was done with them.

What was done is read from the records of the store, what would be done from those of a simulation, by the same rules. Nothing
is sent, and nothing is written but the simulation's own files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from operator import attrgetter

from pipeline.engine.ends import BY_WHEN, TOLD, UNTOLD, End, Ends, State
from pipeline.engine.simulation import Simulation
from pipeline.message import headline
from pipeline.spec.model import PipelineSpec
from pipeline.store import Store
from pipeline.store.rows import Accepted


@dataclass(frozen=True, slots=True)
class Compared:
    """How a message ended at one consumer then, and how it would now."""

    consumer: str
    then: End
    now: End

    @property
    def different(self) -> bool:
        """Whether the consumer would be told of it otherwise.

        That it failed then is no difference, as here nobody fails; nor is it one that it was no consumer then, and that the
        message would not come to it.
        """
        if self.then.state is State.FAILED:
            return self.now.state not in TOLD
        if State.NOTHING in (self.then.state, self.now.state) and {self.then.state, self.now.state} <= UNTOLD:
            return False
        return self.then.state is not self.now.state


@dataclass(frozen=True, slots=True)
class Replayed:
    """A message and its ends. `known`: there is a record of what was done with it."""

    id: str
    title: str
    at: datetime
    """When it was first worked on, then and now."""
    known: bool
    ends: tuple[Compared, ...]

    @property
    def different(self) -> bool:
        """Whether some consumer would be told of it otherwise; what was done with it has to be known."""
        return self.known and any(one.different for one in self.ends)


@dataclass(frozen=True, slots=True)
class Change:
    """So many messages whose ends at these consumers would be others in the same way: by the same steps."""

    consumers: tuple[str, ...]
    then: str
    now: str
    count: int


@dataclass(frozen=True, slots=True)
class Notifications:
    """How many messages a consumer took then for those that were replayed, and would take now."""

    consumer: str
    then: int
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The outcome of a replay: `since` and `until` are the times of the first and of the last message."""

    pipeline: str
    since: datetime
    until: datetime
    messages: tuple[Replayed, ...]
    different: int
    unknown: int
    """Messages without a record, which are compared with nothing."""
    failed: int
    """Messages that a consumer failed with then, and that it would be given now as well."""
    changes: tuple[Change, ...]
    """The differences in groups, the largest first."""
    notifications: tuple[Notifications, ...]


Progress = Callable[[int], object]


def replay(spec: PipelineSpec, accepted: Sequence[Accepted], store: Store, *, now: datetime, progress: Progress = bool) -> Replay:
    """Run kept messages (in their order, one at least) through the pipeline up to `now`, and compare.

    May raise what a store may. `progress` is called now and then with how many are done.
    """
    ids = [one.message.id for one in accepted]
    then = Ends(store, spec, ids)
    quiet = replace(spec, producers=(), keep=None)  # what was polled then is among the messages
    with Simulation(quiet, start=accepted[0].at) as simulation:
        _run(simulation, accepted, now, progress)
        would = Ends(simulation.store, spec, ids)
        return _compared(spec, accepted, then, would)


def _run(simulation: Simulation, accepted: Sequence[Accepted], now: datetime, progress: Progress) -> None:
    """Let each batch come at its time, and then time pass until now."""
    done = 0
    for at, batch in groupby(accepted, key=attrgetter("at")):
        due = simulation.store.next_due()
        if simulation.spec.ordered or (due is not None and due <= at):
            simulation.run_until(at)
        else:
            simulation.now = at
        messages = [one.message for one in batch]
        simulation.accept(messages)
        simulation.work()
        done += len(messages)
        progress(done)
    simulation.run_until(max(now, simulation.now))


def _compared(spec: PipelineSpec, accepted: Sequence[Accepted], then: Ends, now: Ends) -> Replay:
    consumers = list(dict.fromkeys([*now.consumers, *then.consumers]))
    before = {consumer: then.at(consumer) for consumer in consumers}
    after = {consumer: now.at(consumer) for consumer in consumers}
    for gone in set(consumers) - {step.label for step in spec.consumers}:
        after[gone] = dict.fromkeys(after[gone], End(State.NOTHING, reason="no such consumer now"))
    messages = tuple(
        Replayed(
            id=(found := one.message.id),
            title=headline(one.message),
            at=one.at,
            known=then.known(found),
            ends=tuple(Compared(consumer, before[consumer][found], after[consumer][found]) for consumer in consumers),
        )
        for one in accepted
    )
    return Replay(
        pipeline=spec.name,
        since=accepted[0].at,
        until=accepted[-1].at,
        messages=messages,
        different=sum(one.different for one in messages),
        unknown=sum(not one.known for one in messages),
        failed=sum(any(end.then.state is State.FAILED and not end.different for end in one.ends) for one in messages),
        changes=_changes(messages),
        notifications=tuple(Notifications(one, _count(before[one]), _count(after[one])) for one in consumers),
    )


def _changes(messages: Sequence[Replayed]) -> tuple[Change, ...]:
    found: Counter[tuple[tuple[str, ...], str, str]] = Counter()
    for one in messages:
        alike: dict[tuple[str, str], list[str]] = {}
        for end in one.ends if one.known else ():
            if end.different:
                alike.setdefault((_said(end.then), _said(end.now)), []).append(end.consumer)
        found.update((tuple(consumers), *said) for said, consumers in alike.items())
    return tuple(Change(*key, count) for key, count in found.most_common())


def _said(end: End) -> str:
    """Say an end so that it is the same for all messages that came to it by the same step."""
    if end.state in TOLD:
        return end.state.value
    if end.state is State.NOTHING:
        return end.reason or end.state.value
    step = "when" if end.reason.startswith(BY_WHEN) else end.step
    by = f" by {step}" if step and end.state is not State.FAILED else ""
    return f"{end.state.value}{by}{' at ' if end.place else ''}{end.place}"


def _count(ends: Mapping[str, End]) -> int:
    return len({told for end in ends.values() for told in end.told_by})
