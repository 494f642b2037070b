"""What a test expected beside what was seen: which of both belong together, and why something is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, Final, Literal

from pipeline.engine.dryrun import plain
from pipeline.engine.simulation import Simulation
from pipeline.message import FIELDS, Message
from pipeline.spec.cases import Expected, Wanted
from pipeline.spec.matching import MISSING, at_path, differing, fits
from pipeline.store import Outcome, Record
from pipeline.units import format_duration

TOLERANCE: Final = timedelta(seconds=1)
"""What is expected at a time may come so much earlier or later: clocks look four times a second."""
MOST_REASONS: Final = 5
"""Messages of which is told what became of them, where something is missing."""
DEEPEST: Final = 10
"""How often a message may have become another one until its story ends."""
_MOST_COMPARED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A delivery, a dropped message or a dead letter: when, and its fields, those that cost something when asked for."""

    at: datetime
    fields: Mapping[str, Any]
    costly: Mapping[str, Callable[[], Any]] = field(default_factory=dict)

    def value(self, path: str) -> Any:
        """Give what lies at a path; MISSING where there is nothing."""
        name = path.partition(".")[0].partition("[")[0]
        if name in self.costly:
            return at_path({name: self.costly[name]()}, path)
        return at_path(self.fields, path)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a difference: expected and not seen (`-`), seen and not expected (`+`), or both (` `)."""

    sign: Literal["-", "+", " "]
    when: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where a test's expectation and what was seen are not the same."""

    subject: str
    rows: Sequence[Row]
    reasons: Sequence[str] = ()
    place: tuple[str, ...] = ()
    """The keys that lead to the expectation in the test's declaration; empty where it has none."""
    seen: Any = None
    """What would have to stand there."""


class Judge:
    """Compares what one test expects with what was seen."""

    def __init__(self, start: datetime, simulation: Simulation) -> None:
        self._start = start
        self._simulation = simulation

    def compare(self, subject: str, place: tuple[str, ...], wanted: Expected, seen: Sequence[Seen]) -> Difference | None:
        """Give the difference; None where there is none."""
        if isinstance(wanted, int):
            if wanted == len(seen):
                return None
            counted = [
                Row("-", "", str(wanted)),
                Row("+", "", str(len(seen))),
                *(self._seen(one, ["title"], " ") for one in seen),
            ]
            return Difference(subject=subject, rows=counted, place=place, seen=len(seen))
        same = [[self._fits(one, other) for other in seen] for one in wanted]
        pairs = _aligned(same, len(wanted), len(seen))
        complete = all(one is not None and other is not None for one, other in pairs)
        if complete or (len(wanted) == len(seen) and _any_order(same, [one.at for one in seen])):
            return None
        paths = list(dict.fromkeys(path for one in wanted for path in one.fields)) or ["title"]
        rows: list[Row] = []
        for one, other in _side_by_side(pairs):
            if one is None:
                rows.append(self._seen(seen[other or 0], paths, "+"))
            elif other is None:
                rows.append(self._wanted(wanted[one]))
            elif same[one][other]:
                rows.append(self._seen(seen[other], paths, " "))
            else:
                rows += self._both(wanted[one], seen[other])
        timed = not wanted or any(one.earliest or one.latest for one in wanted)
        beside = {other: wanted[one] for one, other in _side_by_side(pairs) if one is not None and other is not None}
        written = [self._written(one, beside.get(index), paths, timed) for index, one in enumerate(seen)]
        return Difference(subject=subject, rows=rows, place=place, seen=written)

    def since(self, moment: datetime) -> str:
        """Write a time as the test's own: `+10m`."""
        before = moment < self._start
        return f"{'-' if before else '+'}{format_duration(abs(_rounded(moment - self._start)))}"

    def reasons(self, consumer: str) -> list[str]:
        """Say of the messages that did not reach a consumer what became of them, the first few."""
        told = []
        for at, _, message in self._simulation.accepted:
            if story := self._story(message.id, consumer):
                told.append(f"{_name(message)} ({self.since(at)}) {story}")
        more = len(told) - MOST_REASONS
        return [*told[:MOST_REASONS], f"and {more} more"] if more > 1 else told

    def _story(self, message_id: str, consumer: str, depth: int = 0) -> str:
        """Say why a message is not there; empty where it is."""
        records = self._simulation.records(message_id)
        filters = {step.label for step in self._simulation.spec.filters}
        if any(record.step == consumer and record.outcome is Outcome.DELIVERED for record in records):
            return ""
        for record in records:
            if record.outcome is Outcome.REPLACED and record.became and depth < DEEPEST:
                return next(filter(None, (self._story(other, consumer, depth + 1) for other in record.became)), "")
            if record.step == consumer or (record.step in filters and record.outcome in _ENDS):
                return _told(record)
        return "is still on its way"

    def _fits(self, wanted: Wanted, seen: Seen) -> bool:
        if wanted.earliest is not None and seen.at < wanted.earliest.of(self._start) - TOLERANCE:
            return False
        if wanted.latest is not None and seen.at > wanted.latest.of(self._start) + TOLERANCE:
            return False
        return all(fits(value, seen.value(path)) for path, value in wanted.fields.items())

    def _time_of(self, seen: Seen, wanted: Wanted | None) -> Any:
        """Give the time that would be written: where what is expected has room for it, that."""
        ends = [] if wanted is None else [("from", wanted.earliest), ("to", wanted.latest)]
        span = {name: self.since(moment.of(self._start)) for name, moment in ends if moment is not None}
        if wanted is None or not span or not self._fits(replace(wanted, fields={}), seen):
            return self.since(seen.at)
        return span["from"] if span.get("from") == span.get("to") else span

    def _wanted(self, wanted: Wanted) -> Row:
        return Row("-", self._when(wanted), _line(wanted.fields.items()))

    def _when(self, wanted: Wanted) -> str:
        ends = [self.since(moment.of(self._start)) if moment else "" for moment in (wanted.earliest, wanted.latest)]
        return ends[0] if ends[0] == ends[1] else f"{ends[0]}…{ends[1]}"

    def _both(self, wanted: Wanted, seen: Seen) -> list[Row]:
        """Give what was expected above what stands in its place: the title, and what is not the same."""
        named = {path: seen.value(path) for path in wanted.fields}
        unlike = [one for path, value in wanted.fields.items() for one in differing(value, named[path], path)]
        known = any(path == "title" for path, _, _ in unlike) or seen.value("title") is MISSING
        title = [] if known else [("title", seen.value("title"))]
        return [
            Row("-", self._when(wanted), _line([*title, *((path, value) for path, value, _ in unlike)])),
            Row("+", self.since(seen.at), _line([*title, *((path, value) for path, _, value in unlike)])),
        ]

    def _seen(self, seen: Seen, paths: Sequence[str], sign: Literal["+", " "]) -> Row:
        return Row(
            sign, self.since(seen.at), _line((path, value) for path in paths if (value := seen.value(path)) is not MISSING)
        )

    def _written(self, seen: Seen, wanted: Wanted | None, paths: Sequence[str], timed: bool) -> dict[str, Any]:
        """Give what would be written into the test for this: what fits there already stays as it is."""
        named = paths if wanted is None else list(wanted.fields)
        found: dict[str, Any] = {"at": self._time_of(seen, wanted)} if timed else {}
        for path in named:
            value = seen.value(path)
            if wanted is not None and fits(wanted.fields[path], value):
                found[path] = wanted.fields[path]
            elif value is not MISSING:
                found[path] = _lasting(path, plain(value))
        return found


_PLACED: Final = re.compile(r"(?P<by>by [^:]+?)(: (?P<why>.+))? at \S+:\d+:\d+")
"""What the records say of a drop: by which filter, why, and where that stands."""
_ENDS: Final = frozenset({Outcome.DROPPED, Outcome.BURIED, Outcome.HELD})


def fields_of(message: Message) -> dict[str, Any]:
    """Give all fields of a message, with those that say nothing."""
    known = {name: getattr(message, name) for name in FIELDS}
    return known | {"time": message.time.isoformat()}


def _lasting(path: str, value: Any) -> Any:
    """Give what would be written of a value: of a reason what the filter said, without its line, which moves."""
    placed = _PLACED.fullmatch(value) if path == "reason" and isinstance(value, str) else None
    return {"contains": placed["why"] or placed["by"]} if placed else value


def _told(record: Record) -> str:
    if record.outcome is Outcome.DROPPED:
        return f"was dropped {record.reason}"
    if record.outcome is Outcome.BURIED:
        return f"was buried at {record.step}: {record.reason}"
    if record.outcome is Outcome.HELD:
        return f"waits at {record.step}: {record.reason}"
    return f"is {record.outcome.value} at {record.step}"


def _aligned(same: Sequence[Sequence[bool]], rows: int, columns: int) -> list[tuple[int | None, int | None]]:
    """Put expected and seen together, in order, so that as many as possible are pairs."""
    if rows * columns > _MOST_COMPARED:
        paired = [(n, n) if n < min(rows, columns) and same[n][n] else None for n in range(max(rows, columns))]
        return [pair or (n if n < rows else None, None) for n, pair in enumerate(paired)] + [
            (None, n) for n, pair in enumerate(paired) if pair is None and n < columns
        ]
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for row in reversed(range(rows)):
        for column in reversed(range(columns)):
            together = best[row + 1][column + 1] + 1 if same[row][column] else 0
            best[row][column] = max(together, best[row + 1][column], best[row][column + 1])
    pairs: list[tuple[int | None, int | None]] = []
    row = column = 0
    while row < rows or column < columns:
        if row < rows and column < columns and same[row][column] and best[row][column] == best[row + 1][column + 1] + 1:
            pairs.append((row, column))
            row, column = row + 1, column + 1
        elif row < rows and (column == columns or best[row + 1][column] >= best[row][column + 1]):
            pairs.append((row, None))
            row += 1
        else:
            pairs.append((None, column))
            column += 1
    return pairs


def _side_by_side(pairs: Sequence[tuple[int | None, int | None]]) -> list[tuple[int | None, int | None]]:
    """Put what is missing beside what came in its place, between two that are as they should be."""
    found: list[tuple[int | None, int | None]] = []
    missing: list[int] = []
    extra: list[int] = []
    for one, other in [*pairs, (-1, -1)]:
        if one is not None and other is not None:
            found += zip_longest(missing, extra)
            found.append((one, other))
            missing, extra = [], []
        elif one is not None:
            missing.append(one)
        elif other is not None:
            extra.append(other)
    return found[:-1]


def _any_order(same: Sequence[Sequence[bool]], times: Sequence[datetime]) -> bool:
    """Say whether all is there, where what came at the same moment may stand in any order."""
    begun, moments = times[0] if times else None, list[int]()
    for at in times:
        later = begun is not None and at - begun >= TOLERANCE
        begun = at if later else begun
        moments.append((moments[-1] if moments else 0) + later)
    free, last = list(range(len(times))), 0
    for row in same:
        found = next((column for column in free if row[column]), None)
        if found is None or moments[found] < last:
            return False
        free.remove(found)
        last = moments[found]
    return True


def _line(fields: Any) -> str:
    return ", ".join(f"{path}: {_shown(value)}" for path, value in fields)


def _shown(value: Any) -> str:
    if value is MISSING:
        return "nothing"
    return json.dumps(plain(value), ensure_ascii=False)


def _name(message: Message) -> str:
    return f"'{message.title or message.text[:60] or message.id}'"


def _rounded(length: timedelta) -> timedelta:
    """Give a length in whole seconds where it is long, for a person who compares two."""
    return length if abs(length) < timedelta(seconds=10) else timedelta(seconds=round(length.total_seconds()))
