"""The command: `python tests/faults` with run, schedules and outage."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import table
from harness.bench import COMBINATIONS, Bench, Combination
from harness.cell import Plan, Result, run_cell
from harness.faults import Fault, all_faults
from harness.servers import MissingError

Report = Callable[[Result], None]
_TAIL = 25


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; gives the exit code: 1 where anything was lost or a bound broken."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="every fault on every combination, once")
    run.add_argument("--broker", action="append", choices=sorted(COMBINATIONS), help="only these combinations")
    run.add_argument("--fault", action="append", help="only faults whose name contains this")
    run.add_argument("--pick", type=int, default=0, help="a random choice of this many faults for each combination")
    run.add_argument("--count", type=int, default=4500, help="messages of each cell")
    run.add_argument("--seconds", type=float, default=8.0, help="how long the load of a cell lasts at least")
    run.add_argument("--scale", type=float, default=1.0, help="shortens what faults hold: 20 s times this")
    run.add_argument("--patience", type=float, default=90.0, help="seconds without progress after which a message is lost")
    run.add_argument("--seed", default="", help="the seed; a random one without it")
    run.add_argument("--directory", type=Path, help="where logs and data go; a directory under /tmp without it")
    run.set_defaults(do=run_table)
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started and mounted is cleaned up
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen.seed = chosen.seed or str(secrets.randbelow(10**6))
    code: int = chosen.do(chosen)
    return code


def run_table(chosen: argparse.Namespace) -> int:
    """Run the cells of the table one after the other, and print it."""
    place = _place(chosen.directory)
    print(f"seed {chosen.seed}, logs in {place}", flush=True)
    results: list[Result] = []
    for name in chosen.broker or COMBINATIONS:
        results += _column(COMBINATIONS[name], chosen, place / name)
    print("\n" + table.markdown(results))
    failed = [result for result in results if result.problems]
    for result in failed:
        print(f"FAILED {result.combination}: {' + '.join(result.faults)}; again by:\n  {again(result, chosen)}")
    if not failed:
        shutil.rmtree(place, ignore_errors=True)
    return 1 if failed else 0


def again(result: Result, chosen: argparse.Namespace) -> str:
    """Give the command that repeats one cell."""
    words = ["python", "tests/faults", "run", "--broker", result.combination, "--fault", result.faults[0], "--seed", chosen.seed]
    words += ["--count", str(chosen.count), "--seconds", f"{chosen.seconds:g}", "--scale", f"{chosen.scale:g}"]
    return shlex.join(words)


def _column(combination: Combination, chosen: argparse.Namespace, place: Path) -> list[Result]:
    plan = Plan(chosen.count, chosen.seconds, chosen.scale, chosen.patience)
    results: list[Result] = []
    bench: Bench | None = None
    try:
        for fault in _faults(combination, chosen):
            if bench is None:
                bench = Bench(combination, place / f"{len(results)}").__enter__()
            result = _cell(bench, fault, plan, f"{chosen.seed}/{combination.name}/{fault.name}")
            print(table.line(result), flush=True)
            results.append(result)
            if result.problems:
                _explain(result, bench)
                bench.__exit__(None, None, None)
                bench = None
    finally:
        if bench is not None:
            bench.__exit__(None, None, None)
    return results


def _faults(combination: Combination, chosen: argparse.Namespace) -> list[Fault]:
    from random import Random

    found = [fault for fault in all_faults() if not fault.why_not(combination)]
    if chosen.fault:
        found = [fault for fault in found if any(part in fault.name for part in chosen.fault)]
    if chosen.pick:
        picked = Random(f"{chosen.seed}/{combination.name}").sample(found, min(chosen.pick, len(found)))
        found = [fault for fault in found if fault in picked]
    return found


def _cell(bench: Bench, fault: Fault, plan: Plan, seed: str) -> Result:
    try:
        return run_cell(bench, [fault], plan, seed)
    except MissingError as missing:
        if os.environ.get("CI") == "true":
            return Result(bench.combination.name, [fault.name], seed, problems=[str(missing)])
        return Result(bench.combination.name, [fault.name], seed, skipped=str(missing))
    except AssertionError as error:
        return Result(bench.combination.name, [fault.name], seed, problems=[f"{type(error).__name__}: {error}"])


def _explain(result: Result, bench: Bench) -> None:
    for problem in result.problems:
        print(f"    {problem}".replace("\n", "\n    "))
    for note in result.notes:
        print(f"    note: {note}")
    print(f"    the log {bench.log} ends with")
    print("      " + bench.tail(_TAIL).replace("\n", "\n      "), flush=True)


def _place(said: Path | None) -> Path:
    if said is None:
        place = Path(tempfile.mkdtemp(prefix="siftbell-faults-"))
        place.chmod(0o755)  # PostgreSQL runs as a user of its own
        return place
    said.mkdir(parents=True, exist_ok=True)
    return said.absolute()


if __name__ == "__main__":
    sys.exit(main())
