"""Random schedules in a row on the same tree: each a seed, a few hundred messages, one to three faults, and an account."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from harness.bench import Bench, Combination
from harness.cell import Plan, Result, run_cell
from harness.faults import Fault, all_faults
from harness.journal import Journal

RARE: Final = ("SIGTERM", "disk full")
"""Faults that come less often, as they last long or are about one thing only."""
_MOST = 3


def draw(combination: Combination, seed: str) -> tuple[list[Fault], Plan]:
    """Give the faults of a seed, each another kind, and how much load there is around them."""
    chance = Random(seed)
    possible = [fault for fault in all_faults() if not fault.why_not(combination)]
    weights = {fault.name: _weight(fault, combination) for fault in possible}
    faults: list[Fault] = []
    for _ in range(chance.randint(1, _MOST)):
        left = [fault for fault in possible if fault not in faults]
        faults += chance.choices(left, [weights[fault.name] for fault in left])
    return faults, Plan(chance.randint(300, 1000), chance.uniform(1.5, 3), chance.uniform(0.05, 0.2), patience=60)


def _weight(fault: Fault, combination: Combination) -> float:
    if combination.broker == "rabbitmq" and fault.name == "kill -9: broker":
        return 0.3  # it takes 8 s to start
    return 0.3 if fault.name.startswith(RARE) else 1.0


class Schedules:
    """Runs the schedules of one combination; the bench is made anew after one that failed."""

    def __init__(self, combination: Combination, place: Path, journal: Journal) -> None:
        self._combination = combination
        self._place = place
        self._journal = journal
        self._bench: Bench | None = None
        self._benches = 0

    def run(self, seeds: range) -> Iterator[tuple[Result, Bench | None]]:
        """Give each seed's result, and the bench where it is left as it was because the schedule failed."""
        try:
            for seed in seeds:
                known = self._journal.holds(self._combination.name, str(seed))
                if known is not None:
                    yield known, None
                    continue
                result = self._one(str(seed))
                self._journal.add(result)
                yield result, self._bench if result.problems else None
                if result.problems:
                    self.close()
        finally:
            self.close()

    def close(self) -> None:
        """End what runs."""
        bench, self._bench = self._bench, None
        if bench is not None:
            bench.__exit__(None, None, None)

    def _one(self, seed: str) -> Result:
        faults, plan = draw(self._combination, seed)
        began = time.monotonic()
        try:
            if self._bench is None:
                self._benches += 1
                self._bench = Bench(self._combination, self._place / str(self._benches)).__enter__()
            return run_cell(self._bench, faults, plan, seed)
        except Exception as error:  # noqa: BLE001 - whatever the harness itself meets, the next schedules are to be run
            names = [fault.name for fault in faults]
            problems = [f"{type(error).__name__}: {error}"]
            return Result(self._combination.name, names, seed, problems=problems, seconds=time.monotonic() - began)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    parser.add_argument("--count", type=int, default=200, help="how many schedules")
    parser.add_argument("--seed", type=int, default=1000, help="the first one's seed; the next has the next number")
    parser.add_argument("--results", type=Path, help="a file of results: seeds that held before are not run again")


def summary(results: list[Result]) -> str:
    """Give a line about schedules that were run."""
    first, last = results[0].seed, results[-1].seed
    failed = [result.seed for result in results if result.problems]
    accepted = sum(result.accepted for result in results)
    seconds = sum(result.seconds for result in results) / len(results)
    return (
        f"{results[0].combination}: {len(results)} schedules, seeds {first} to {last}, {accepted:,} messages accepted, "
        f"{sum(result.lost for result in results)} lost, {sum(result.duplicates for result in results)} duplicates, "
        f"{seconds:.1f} s each; {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}"
    )
