"""One cell: load, one fault or several at random moments, settling, and the account of it all."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from harness.bench import Bench
from harness.faults import FULL_FREEZE, Fault
from harness.ledger import Ledger, Verdict
from harness.load import LARGEST, THREADS, Load
from harness.processes import TooLateError
from pipeline.engine.batch import MAX_DELIVER, MAX_PROCESS
from pipeline.queue.worker import DELIVERY_THREADS

IN_FLIGHT: Final = THREADS * LARGEST + (os.cpu_count() or 1) * MAX_PROCESS + DELIVERY_THREADS * MAX_DELIVER
"""Messages that can be under way to one consumer at any moment: one request of each sender, a batch in each process that
filters, a batch in each thread that delivers. What is killed then may have been taken and not recorded, and comes again."""
_LOOK: Final = 0.05
_LETTERS_EVERY: Final = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much and how long: `count` messages over at least `seconds`; `scale` shortens what a fault holds."""

    count: int
    seconds: float
    scale: float = 1.0
    patience: float = 90.0
    """Seconds without any progress after which what is missing is lost."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A fault, and when it comes: `after` seconds, for `holds` seconds."""

    fault: Fault
    after: float
    holds: float


@dataclass(slots=True)
class Result:
    """What a cell gave. `problems` is empty where it holds."""

    combination: str
    faults: list[str]
    seed: str
    skipped: str = ""
    accepted: int = 0
    delivered: int = 0
    buried: int = 0
    lost: int = 0
    duplicates: int = 0
    """At the consumer that has most of them."""
    bound: int = 0
    stall: float = 0.0
    recovery: float | None = None
    inversions: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run_cell(bench: Bench, faults: Sequence[Fault], plan: Plan, seed: str) -> Result:
    """Run load and faults, wait until all is accounted for, and judge. The bench is whole again afterwards, or this raises."""
    began = time.monotonic()
    result = Result(bench.combination.name, [fault.name for fault in faults], seed)
    chance = Random(seed)
    moments, seconds = _schedule(faults, plan, chance)
    bench.notes.clear()
    ledger = bench.new_ledger()
    with Load(bench.url, bench.key, ledger, count=plan.count, seconds=seconds, seed=seed) as load:
        _inject(bench, ledger, moments, chance)
        bench.heal()
        load.finish(max(60.0, 3 * plan.seconds))
    settle(bench, ledger, plan.patience)
    held_up = {name for fault in faults for name in fault.held_up}
    verdict = ledger.verdict(apart_from=held_up)
    result.bound = IN_FLIGHT * sum(fault.events for fault in faults)
    _judge(result, verdict, load, bench)
    if not load.done:
        result.problems.append(f"only {ledger.accepted} of {plan.count} messages were accepted: {dict(load.answers)}")
    result.notes += bench.notes
    result.seconds = time.monotonic() - began
    return result


def settle(bench: Bench, ledger: Ledger, patience: float) -> None:
    """Wait until everything accepted has arrived or is buried, or nothing has moved for `patience` seconds."""
    moved, letters_at = time.monotonic(), 0.0
    before = -1
    while True:
        now = time.monotonic()
        if now > letters_at + _LETTERS_EVERY or not ledger.outstanding:
            ledger.bury(bench.dead_letters())
            letters_at = now
        outstanding = ledger.outstanding
        if not outstanding:
            return
        if outstanding != before:
            before, moved = outstanding, now
        if now > moved + patience:
            return
        time.sleep(_LOOK)


def _schedule(faults: Sequence[Fault], plan: Plan, chance: Random) -> tuple[list[Moment], float]:
    """Choose the moments, and say how long the load must last to surround them."""
    moments = []
    for fault in faults:
        holds = fault.holds * plan.scale if fault.holds else 0.0
        moments.append(Moment(fault, chance.uniform(0.15, 0.6) * plan.seconds, holds))
    return moments, max(plan.seconds, *(moment.after + moment.holds + 0.3 * plan.seconds for moment in moments), 0.0)


def _inject(bench: Bench, ledger: Ledger, moments: Sequence[Moment], chance: Random) -> None:
    """Break and mend at the moments chosen; the account of recovery begins with the last mending."""
    began = time.monotonic()
    begins = [(moment.after, 0, number, moment) for number, moment in enumerate(moments)]
    ends = [(moment.after + moment.holds, 1, number, moment) for number, moment in enumerate(moments)]
    for at, ending, _, moment in sorted(begins + ends, key=lambda one: one[:3]):
        time.sleep(max(0.0, began + at - time.monotonic()))
        if ending:
            moment.fault.undo(bench)
        else:
            moment.fault.inject(bench, chance)
    ledger.mark()


def _judge(result: Result, verdict: Verdict, load: Load, bench: Bench) -> None:
    result.accepted, result.delivered, result.buried = verdict.accepted, verdict.delivered, verdict.buried
    result.lost = verdict.lost_count
    result.duplicates = max(verdict.duplicates.values())
    result.stall, result.recovery = verdict.stall, verdict.recovery
    result.inversions = sum(verdict.inversions.values())
    for name, missing in verdict.lost.items():
        result.problems.append(f"{len(missing)} lost at {name}, the first {missing[0]}")
    if verdict.lost:
        result.problems.append(bench.trace([missing[0] for missing in verdict.lost.values()]))
    for name, seen in verdict.dropped_seen.items():
        result.problems.append(f"{len(seen)} that a filter drops were seen at {name}, the first {seen[0]}")
    for name, count in verdict.duplicates.items():
        if count > result.bound:
            result.problems.append(f"{count} duplicates at {name}, more than the {result.bound} that can have been under way")
    for name, count in verdict.inversions.items():
        if count:
            result.problems.append(f"{count} messages out of order at {name}")
    result.problems += [f"the intake answered {text}" for text in load.refused[:3]]


__all__ = ["FULL_FREEZE", "IN_FLIGHT", "Moment", "Plan", "Result", "TooLateError", "run_cell", "settle"]
