"""One cell: load, one fault or several at random moments, settling, and the account of it all."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

from harness.bench import Bench
from harness.faults import FULL_FREEZE, Fault
from harness.ledger import Ledger, Verdict
from harness.load import LARGEST, THREADS, Load
from harness.processes import TooLateError
from pipeline.engine.batch import MAX_AT_ONCE, MAX_PROCESS
from pipeline.errors import TemporaryError
from pipeline.queue.worker import DELIVERY_THREADS

IN_FLIGHT: Final = THREADS * LARGEST + (os.cpu_count() or 1) * MAX_PROCESS + DELIVERY_THREADS * MAX_AT_ONCE
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
    moments, seconds = schedule(faults, plan, Random(seed))
    bench.notes.clear()
    ledger = bench.new_ledger()
    with Load(bench.url, bench.key, ledger, count=plan.count, seconds=seconds, seed=seed) as load:
        _break(bench, ledger, moments, seed, result)
        bench.heal()
        load.finish(max(60.0, 3 * plan.seconds))
    settle(bench, ledger, plan.patience)
    held_up = {name for fault in faults for name in fault.held_up}
    verdict = ledger.verdict(apart_from=held_up)
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
            with suppress(TemporaryError):  # the store is busy: the next look will do
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


def schedule(faults: Sequence[Fault], plan: Plan, chance: Random) -> tuple[list[Moment], float]:
    """Choose the moments, and say how long the load must last to surround them."""
    moments = []
    for fault in faults:
        holds = fault.holds * plan.scale if fault.holds else 0.0
        moments.append(Moment(fault, chance.uniform(0.15, 0.6) * plan.seconds, holds))
    return moments, max(plan.seconds, *(moment.after + moment.holds + 0.3 * plan.seconds for moment in moments), 0.0)


class _Occurrence(threading.Thread):
    """Breaks and mends at one moment, beside the others: what one of them waits for, another may have to mend."""

    def __init__(self, bench: Bench, ledger: Ledger, moment: Moment, chance: Random) -> None:
        super().__init__(daemon=True)
        self.moment = moment
        self.under_way = 0
        """How many messages could be repeated because of it."""
        self.error: Exception | None = None
        self._bench, self._ledger, self._chance = bench, ledger, chance

    def run(self) -> None:
        """Do it."""
        try:
            time.sleep(self.moment.after)
            self.moment.fault.inject(self._bench, self._chance)
            self._count()
            time.sleep(self.moment.holds)
            self.moment.fault.undo(self._bench)
            self._count()
        except Exception as error:  # noqa: BLE001 - raised again where the occurrences are waited for
            self.error = error

    def _count(self) -> None:
        found = self.moment.fault.events * min(self._ledger.under_way(), IN_FLIGHT)
        self.under_way = max(self.under_way, found)


def _break(bench: Bench, ledger: Ledger, moments: Sequence[Moment], seed: str, result: Result) -> None:
    """Have all faults occur, and note how many duplicates that explains; raises what kept the only one from occurring."""
    occurrences = [_Occurrence(bench, ledger, moment, Random(f"{seed}/{number}")) for number, moment in enumerate(moments)]
    for one in occurrences:
        one.start()
    for one in occurrences:
        one.join()
        result.bound += one.under_way
        if one.error is not None and (len(moments) == 1 or not isinstance(one.error, TooLateError)):
            raise one.error
        if one.error is not None:
            result.notes.append(f"{one.moment.fault.name}: {one.error}")
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
