"""A dry run, printed so that a person sees what every step did to the message."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from pipeline.cli.output import clean
from pipeline.engine.journey import Change, Delivery, Journey, Trace, Visit

STYLES: Final = {
    "passed": "green",
    "changed": "cyan",
    "dropped": "yellow",
    "split": "cyan",
    "held": "magenta",
    "left out": "dim",
    "failed": "bold red",
    "would send": "green",
}
LONGEST: Final = 300
"""Characters of a value that a person is shown; `-o json` has all of it."""
MOST_LINES: Final = 24
"""Lines of a preview that a person is shown."""
STEP: Final = 2
"""Columns by which what belongs to something stands further right."""


def print_traces(traces: Sequence[Trace], names: Sequence[str], where: Console) -> None:
    """Print a dry run, of one payload or of several; `names` are theirs."""
    if len(traces) == 1:
        print_trace(traces[0], where)
        return
    for index, (trace, name) in enumerate(zip(traces, names, strict=True)):
        if index:
            where.print()
        where.print(_line((name, "bold")))
        print_trace(trace, where, identified=True)


def print_trace(trace: Trace, where: Console, *, identified: bool = False) -> None:
    """Print what became of one payload; with its messages' ids where what is told of another one may name them."""
    if trace.refused is not None:
        refused = trace.refused
        where.print(_line(("refused", STYLES["failed"]), f" by {trace.producer} ({refused.status}): {refused.reason}"))
        for problem in refused.problems:
            where.print(_line("  ", (problem.where or "the body", "bold"), f": {problem.text}"))
        return
    count = len(trace.journeys)
    where.print(_line(f"{trace.pipeline}: {trace.producer} made {count} message{'' if count == 1 else 's'}"))
    width = max(map(_widest, trace.journeys), default=0)
    for number, journey in enumerate(trace.journeys, 1):
        where.print()
        name = f"message {number} of {count}" if count > 1 else "message"
        for indent, line in _journey(journey, f"{name} {journey.message.id}" if identified else name, width):
            where.print(Padding(line, (0, 0, 0, indent), expand=False))


def _widest(journey: Journey) -> int:
    """Give the length of the longest name of a step."""
    steps: tuple[Visit | Delivery, ...] = (*journey.visits, *journey.deliveries)
    parts = [part for visit in journey.visits for part in visit.parts]
    return max([*(len(_name(step)) for step in steps), *map(_widest, parts)], default=0)


def _journey(journey: Journey, name: str, width: int) -> Iterator[tuple[int, Text]]:
    message = journey.message
    title = message.title or _short(message.text) or message.id
    yield 0, _line((f"{name}: ", "bold"), title)
    facts = " · ".join(fact for fact in (message.type, message.severity, message.status, message.source) if fact)
    yield STEP, _line((facts, "dim"))
    if message.labels:
        yield STEP, _line((" ".join(f"{label}={value}" for label, value in message.labels.items()), "dim"))
    for change in journey.changes:
        yield STEP, _change(change)
    yield from _way(journey, width)


def _way(journey: Journey, width: int) -> Iterator[tuple[int, Text]]:
    for visit in journey.visits:
        yield STEP, _step(visit, width, _because(visit))
        for change in visit.changes:
            yield 3 * STEP, _change(change)
        for number, part in enumerate(visit.parts, 1):
            for indent, line in _journey(part, f"part {number} of {len(visit.parts)}", width):
                yield indent + 2 * STEP, line
    for delivery in journey.deliveries:
        yield STEP, _step(delivery, width, delivery.reason)
        if delivery.did == "would send":
            for text in _preview(delivery.preview):
                yield 3 * STEP, _line(text)


def _because(visit: Visit) -> str:
    """Say why a filter did what it did; where it ended a message, also where the filter stands."""
    if visit.did not in ("dropped", "failed"):
        return visit.reason
    return f"{visit.reason} ({visit.place})" if visit.reason else f"by {visit.place}"


def _step(step: Visit | Delivery, width: int, reason: str) -> Text:
    arrow = "» " if isinstance(step, Delivery) else "  "
    did = f"{step.did:<10}  " if reason else step.did
    return _line((arrow, "dim"), f"{_name(step):<{width}}  ", (did, STYLES[step.did]), (reason, "dim"))


def _name(step: Visit | Delivery) -> str:
    return step.step if step.step == step.plugin else f"{step.step} ({step.plugin})"


def _change(change: Change) -> Text:
    return _line((f"{change.field}: ", "bold"), (_value(change.before), "red"), " → ", (_value(change.after), "green"))


def _value(value: Any) -> str:
    return "nothing" if value is None else _short(json.dumps(value, ensure_ascii=False))


def _preview(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [line for name, inner in value.items() for line in _field(str(name), inner)]
    else:
        found = value.splitlines() if isinstance(value, str) else [_value(value)]
    if len(found) > MOST_LINES:
        found = [*found[:MOST_LINES], f"… {len(found) - MOST_LINES} lines more: -o json has them"]
    return [_short(line) for line in found]


def _field(name: str, value: Any) -> list[str]:
    if isinstance(value, str) and "\n" in value:
        return [f"{name}:", *(f"    {line}" for line in value.splitlines())]
    return [f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def _line(*parts: str | tuple[str, str]) -> Text:
    """Make a line of texts and of texts with a style; what is in it cannot steer the terminal."""
    line = Text()
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        line.append(clean(text), style)
    return line
