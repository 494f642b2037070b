"""What became of a message, as values, and the one sentence that says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pipeline.engine.decisions import MOST_NAMED
from pipeline.store import Record
from pipeline.store.results import Result


class State(StrEnum):
    """How things stand with a message at a step."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    REPLACED = "replaced"
    PASSED = "passed"
    HELD = "held"
    """It failed, and is tried again when it is due."""
    WAITING = "waiting"
    """It failed at nothing: it is in a window, waits for its turn, or is on a queue."""
    BURIED = "buried"
    NOTHING = "nothing yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How things stand with a message at one step, since when and why."""

    pipeline: str
    step: str
    kind: str
    """`filter`, `consumer`, `intake`, or `gone` where the configuration has no such step any more."""
    plugin: str = ""
    place: str = ""
    """File, line and column of the step, as the configuration is now."""
    state: State
    at: datetime | None = None
    attempts: int = 0
    """How often a filter or consumer was tried."""
    since: datetime | None = None
    """When the first of several attempts failed."""
    due: datetime | None = None
    open_since: datetime | None = None
    """Since when the consumer's circuit is open, where the message waits for that; `due` is then when the service is tried."""
    reason: str = ""
    hint: str = ""
    """A command that helps."""
    became: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    """What the other side said later of its deliveries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What became of one message. Times are in UTC; `answer` says in a sentence what `entries` say step by step."""

    id: str
    answer: str
    accepted: datetime | None
    """The time in its id; None where that is not a UUIDv7."""
    title: str = ""
    source: str = ""
    """Known, as the title is, while the message is held or among the dead letters."""
    entries: tuple[Entry, ...]
    """In order of time; what is still to come stands last."""
    origins: tuple[Record, ...] = ()
    """The decisions by which this message came in place of others."""
    became: tuple[Explanation, ...] = ()
    """What became of the messages that went on in its place."""
    records: tuple[Record, ...] = ()


def answer(entries: Sequence[Entry], became: Sequence[Explanation], now: datetime) -> str:
    """Say in a sentence where the message is."""
    parts = []
    if delivered := [entry.step for entry in entries if entry.state is State.DELIVERED]:
        parts.append(f"delivered to {_and(delivered)}")
    parts += [text for entry in entries if (text := _short(entry, now))]
    parts += [text for entry in entries if (text := _failed(entry))]
    for entry in entries:
        if entry.state is State.REPLACED:
            parts.append(_replaced(entry, became))
    if nothing := [entry.step for entry in entries if entry.state is State.NOTHING]:
        parts.append(f"nothing yet from {_and(nothing)}")
    dropped = [entry for entry in entries if entry.state is State.DROPPED]
    if dropped and (not parts or any(entry.kind != "consumer" for entry in dropped)):
        parts.append(f"dropped {'for' if dropped[0].kind == 'consumer' else 'by'} {_and([entry.step for entry in dropped])}")
    return "; ".join(parts) or "nothing is to be done"


def _short(entry: Entry, now: datetime) -> str:
    name = entry.step or "the intake"
    due = f", next try {_in(entry.due, now)}" if entry.due else ""
    if entry.state is State.BURIED:
        return f"{name}: buried" if entry.hint else f"{name}: given up"
    if entry.open_since and entry.due:
        return f"{name}: {entry.state.value} while its circuit is open{due}"
    if entry.state is State.HELD:
        return f"{name}: held{due}"
    if entry.state is State.WAITING:
        return f"{name}: waiting{due.replace('next try', 'due')}"
    return ""


def _failed(entry: Entry) -> str:
    """Say how many of a consumer's deliveries did not arrive, as the other side says."""
    failed = sum(result.arrived is False for result in entry.results)
    count = len(entry.results)
    return f"{entry.step}: {'it' if count == 1 else f'{failed} of {count}'} did not arrive" if failed else ""


def _replaced(entry: Entry, became: Sequence[Explanation]) -> str:
    count = len(entry.became)
    if not count:
        return f"replaced at {entry.step}"
    answers = {one.answer for one in became if one.id in entry.became}
    if (
        count == 1
        and len(answers) == 1
        and (only := next(iter(answers))).startswith((f"went on from {entry.step} ", f"{entry.step}: "))
    ):
        return only  # it waited there in another one's shape
    together = f"{'each ' if count > 1 else ''}{answers.pop()}" if len(answers) == 1 else "which fared differently"
    number = f"{MOST_NAMED} or more" if count == MOST_NAMED else str(count)
    return f"went on from {entry.step} as {number} other{'s' if count > 1 else ''}: {together}"


def span(length: timedelta) -> str:
    """Write a length of time as people say it, in its two largest units."""
    seconds = max(0, round(length.total_seconds()))
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    words: list[str] = []
    for size, unit in units:
        if seconds >= size and len(words) < 2:
            words.append(f"{seconds // size} {unit}")
            seconds %= size
        elif words:
            break
    return " ".join(words) or "0 s"


def _in(due: datetime, now: datetime) -> str:
    return f"in {span(due - now)}" if due > now else "now"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
