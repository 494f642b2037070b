"""The demo's ledger: what was accepted against what the other sides saw, message by message."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.spec.model import ConsumerStep, PipelineSpec
from pipeline.store import Outcome, Record, Store
from pipeline.store.selection import Selection

_MOST_DEAD: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a consumer's other side: how often it took each message, which it put off, which it refused for good."""

    seen: Mapping[str, int]
    put_off: Collection[str] = frozenset()
    refused: Collection[str] = frozenset()


@dataclass(slots=True)
class Line:
    """What became of a pipeline's messages at one consumer; `problems` says what is wrong with it, message by message."""

    pipeline: str
    consumer: str
    came_in: int = 0
    dropped: int = 0
    held: int = 0
    """Messages that had to wait for another attempt, at least once."""
    delivered: int = 0
    buried: int = 0
    missing: int = 0
    duplicates: int = 0
    problems: list[str] = field(default_factory=list)


def balance(spec: PipelineSpec, step: ConsumerStep, accepted: Sequence[str], facts: Facts, store: Store) -> Line:
    """Account for each accepted message at a consumer: exactly one of dropped, delivered (seen there) and buried must hold."""
    line = Line(spec.name, step.label, came_in=len(accepted))
    filtered = [store.records(spec.name, one.label, accepted) for one in spec.filters]
    records = store.records(spec.name, step.label, accepted)
    letters = store.dead_letters(Selection(pipeline=spec.name), limit=_MOST_DEAD)
    places = {step.label, *(one.label for one in spec.filters)}
    buried = {letter.message.id for letter in letters if letter.step in places}
    for message in accepted:
        decisions = [found[message] for found in (*filtered, records) if message in found]
        _account(line, message, decisions, facts, is_buried=message in buried)
    return line


def _account(line: Line, message: str, decisions: Sequence[Record], facts: Facts, *, is_buried: bool) -> None:
    times = facts.seen.get(message, 0)
    dropped = any(record.outcome is Outcome.DROPPED for record in decisions)
    line.dropped += dropped
    line.delivered += times > 0
    line.buried += is_buried
    held = any(record.attempt > 1 for record in decisions)
    line.held += held
    line.duplicates += max(0, times - 1)
    ends = dropped + (times > 0) + is_buried
    if ends == 0:
        line.missing += 1
        line.problems.append(f"{message}: missing at {line.consumer} of {line.pipeline}")
    elif ends > 1:
        line.problems.append(f"{message}: more than one of dropped, delivered and buried at {line.consumer} of {line.pipeline}")
    if is_buried is not (message in facts.refused):
        word = "buried, but not refused" if is_buried else "refused, but not buried"
        line.problems.append(f"{message}: {word} at {line.consumer} of {line.pipeline}")
    if message in facts.put_off and not held:
        line.problems.append(f"{message}: put off, but not held at {line.consumer} of {line.pipeline}")


def seen_in_file(path: Path) -> Counter[str]:
    """Count the messages in a file of JSON lines, by id."""
    if not path.exists():
        return Counter()
    with path.open(encoding="utf-8") as lines:
        return Counter(json.loads(line)["id"] for line in lines)


def seen_in_log(path: Path) -> Counter[str]:
    """Count the messages that the consumer `log` wrote into a log of JSON lines, by id."""
    found: Counter[str] = Counter()
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("{") and (entry := json.loads(line)).get("logger") == "message":
                found[entry["id"]] += 1
    return found
