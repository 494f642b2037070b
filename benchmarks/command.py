"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import Measure, Row, rounds_of
from benchmarks.measure import row as row_of
from benchmarks.measures import MEASURES
from benchmarks.report import PAGE, RESULTS, fallen, number, table, write_page, write_results
from benchmarks.workplace import Workplace

SHORT_ROUNDS = (1, 3, 3)
"""Rounds of a guarded measure: the second and third count where the ones before seem to have fallen."""
SHORT_SCALE = 0.25


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; 0 where every ratio is reached, or with `--short` where none has fallen."""
    options = _parser().parse_args(arguments)
    chosen = [
        kind
        for kind in MEASURES
        if (kind.name in options.only if options.only else not kind.extra) and (kind.guarded or not options.short)
    ]
    directory = Path(options.directory or tempfile.mkdtemp(prefix="siftbell-bench-"))
    place = Workplace(directory)
    try:
        return _guarded(chosen, place) if options.short else _recorded(chosen, place, options)
    finally:
        place.close()
        if not options.directory:
            shutil.rmtree(directory, ignore_errors=True)


def _taken(kind: type[Measure], place: Workplace, rounds: int, scale: float) -> list[Row]:
    began = time.monotonic()
    print(f"== {kind.name}", file=sys.stderr, flush=True)
    taken = rounds_of(kind(place, scale=scale), rounds)
    rows = [row_of(target, taken[name]) for name, target in kind.targets.items()]
    for one in rows:
        told = f"{number(one.ratio)} ({number(one.low)} to {number(one.high)}), at least {number(one.target.at_least)}"
        print(f"   {one.target.measure}: {told}: {number(one.ours)} against {number(one.yardstick)}", file=sys.stderr)
    print(f"   {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def _recorded(chosen: Sequence[type[Measure]], place: Workplace, options: argparse.Namespace) -> int:
    rows: list[Row] = []
    for kind in chosen:
        rows += _taken(kind, place, options.rounds, 1.0)
        if options.write:
            write_results(RESULTS, rows)
    print("\n" + table(rows))
    if options.write and not options.only:
        write_page(PAGE, rows, _how(options))
    missed = [one.target.measure for one in rows if not one.met]
    print(f"\n{len(rows) - len(missed)} of {len(rows)} reached" + "".join(f"\nmissed: {name}" for name in missed))
    return 1 if missed else 0


def _guarded(chosen: Sequence[type[Measure]], place: Workplace) -> int:
    """Take the guarded measures, and again those that seem to have fallen: a neighbour on the machine is gone by then."""
    recorded = json.loads(RESULTS.read_text())
    rows, problems = [], []
    for kind in chosen:
        for rounds in SHORT_ROUNDS:
            taken = _taken(kind, place, rounds, SHORT_SCALE)
            if not fallen(taken, recorded):
                break
        rows += taken
        problems += fallen(taken, recorded)
    print("\n" + table(rows))
    for problem in problems:
        print(f"fallen: {problem}")
    return 1 if problems else 0


def _how(options: argparse.Namespace) -> str:
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {system}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {options.rounds} rounds, {machine}; `{command}`."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [kind.name for kind in MEASURES]
    parser.add_argument("--only", action="append", choices=names, help="only this measure; again for more")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measure [5]")
    parser.add_argument(
        "--short", action="store_true", help="the guarded measures, small; fails below 70 %% of what is on record"
    )
    parser.add_argument("--write", action="store_true", help="write benchmarks/results.json and docs/benchmarks.md")
    parser.add_argument("--directory", help="where everything goes, and stays; a directory under /tmp without it")
    return parser
