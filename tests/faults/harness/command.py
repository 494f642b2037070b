"""The fault harness: run (the table), schedules (random ones in a row), outage (one consumer down, the others measured)."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from harness import outage, schedules, table
from harness.bench import COMBINATIONS, Bench, Combination
from harness.cell import Plan, Result, run_cell
from harness.faults import Fault, all_faults
from harness.journal import Journal, write_section
from harness.servers import MissingError

_TAIL = 25
_TABLE = "table"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; gives the exit code: 1 where anything was lost or a bound broken."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--broker", action="append", choices=sorted(COMBINATIONS), help="only this combination; again for more")
    shared.add_argument("--directory", type=Path, help="where logs and data go; a directory under /tmp without it")
    shared.add_argument("--write", type=Path, metavar="PAGE", help="put the outcome into its section of this page")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", parents=[shared], help="every fault on every combination, once")
    _table_arguments(run)
    run.set_defaults(do=run_table)
    row = verbs.add_parser("schedules", parents=[shared], help="random schedules of faults in a row")
    schedules.add_arguments(row)
    row.set_defaults(do=run_schedules)
    down = verbs.add_parser("outage", parents=[shared], help="one consumer down for a while, the others measured")
    outage.add_arguments(down)
    down.set_defaults(do=run_outage)
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)  # what was started and mounted is cleaned up
    code: int = chosen.do(chosen)
    return code


def _table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fault", action="append", help="only faults whose name contains this")
    parser.add_argument("--pick", type=int, default=0, help="a random choice of this many faults for each combination")
    parser.add_argument("--count", type=int, default=4500, help="messages of each cell")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long the load of a cell lasts at least")
    parser.add_argument("--scale", type=float, default=1.0, help="shortens what faults hold: 20 s times this")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds without progress after which a message is lost")
    parser.add_argument("--seed", default="", help="the seed; a random one without it")
    parser.add_argument("--jobs", type=int, default=1, help="combinations at once, each in a process of its own")
    parser.add_argument("--column", action="store_true", help=argparse.SUPPRESS)  # what such a process is started with
    parser.add_argument("--results", type=Path, help="a file of results: cells that held before with this seed are not run again")


def run_table(chosen: argparse.Namespace) -> int:
    """Run the cells of the table one after the other, and print it."""
    chosen.seed = chosen.seed or str(secrets.randbelow(10**6))
    place = _place(chosen.directory)
    names = chosen.broker or list(COMBINATIONS)
    if chosen.column:
        return int(
            any(result.problems for result in _Column(COMBINATIONS[names[0]], chosen, place, Journal(chosen.results)).run())
        )
    print(f"seed {chosen.seed}, logs in {place}", flush=True)
    if chosen.jobs > 1:
        results = _beside_one_another(names, chosen, place)
    else:
        journal = Journal(chosen.results)
        results = [result for name in names for result in _Column(COMBINATIONS[name], chosen, place / name, journal).run()]
    text = table.markdown(results)
    print("\n" + text)
    failed = [result for result in results if result.problems]
    for result in failed:
        print(f"FAILED {result.combination}: {' + '.join(result.faults)}; again by:\n  {again(result, chosen)}")
    if chosen.write:
        write_section(chosen.write, _TABLE, f"Made by `{_command(chosen)}`.\n\n{text}")
    return _end(place, failed=bool(failed))


def run_schedules(chosen: argparse.Namespace) -> int:
    """Run random schedules in a row on each combination, a line for each."""
    place = _place(chosen.directory)
    print(f"logs in {place}", flush=True)
    journal = Journal(chosen.results)
    failed = False
    lines = []
    for name in chosen.broker or COMBINATIONS:
        results = []
        for result, bench in schedules.Schedules(COMBINATIONS[name], place / name, journal).run(
            range(chosen.seed, chosen.seed + chosen.count)
        ):
            print(f"{result.seed:>6} {table.line(result)}", flush=True)
            results.append(result)
            if result.problems:
                failed = True
                _explain(result, bench)
                print(f"    again by: python tests/faults schedules --broker {name} --count 1 --seed {result.seed}", flush=True)
        lines.append(schedules.summary(results))
        print(lines[-1], flush=True)
    if chosen.write:
        write_section(chosen.write, "schedules", "\n".join(f"- {line}" for line in lines))
    return _end(place, failed=failed)


def run_outage(chosen: argparse.Namespace) -> int:
    """Measure what one consumer's outage is to the others."""
    place = _place(chosen.directory)
    texts: list[str] = []
    problems: list[str] = []
    for name in chosen.broker or ["sqlite"]:
        text, found = outage.measure(COMBINATIONS[name], place / name, chosen)
        print(text, flush=True)
        texts.append(text)
        problems += [f"{name}: {problem}" for problem in found]
    for problem in problems:
        print(f"FAILED: {problem}")
    if chosen.write:
        write_section(chosen.write, "outage", "\n\n".join(texts))
    return _end(place, failed=bool(problems))


def again(result: Result, chosen: argparse.Namespace) -> str:
    """Give the command that repeats one cell."""
    words = ["python", "tests/faults", "run", "--broker", result.combination, "--fault", result.faults[0], "--seed", chosen.seed]
    words += ["--count", str(chosen.count), "--seconds", f"{chosen.seconds:g}", "--scale", f"{chosen.scale:g}"]
    return shlex.join(words)


def _beside_one_another(names: Sequence[str], chosen: argparse.Namespace, place: Path) -> list[Result]:
    """Run each combination in a process of its own, and gather what they found."""
    running: list[subprocess.Popen[bytes]] = []

    def column(name: str) -> list[Result]:
        file = place / f"{name}.jsonl"
        words = ["run", "--column", "--broker", name, "--directory", str(place / name), "--results", str(file)]
        for option in ("pick", "count", "seconds", "scale", "patience", "seed"):
            words += [f"--{option}", str(getattr(chosen, option))]
        words += [word for part in chosen.fault or () for word in ("--fault", part)]
        process = subprocess.Popen([sys.executable, str(Path(__file__).parents[1]), *words])
        running.append(process)
        process.wait()
        found = Journal(file).results
        return found or [Result(name, ["none"], chosen.seed, problems=[f"it ended with exit code {process.returncode}"])]

    with ThreadPoolExecutor(chosen.jobs) as pool:
        try:
            return [result for results in pool.map(column, names) for result in results]
        except KeyboardInterrupt:
            for process in running:
                process.terminate()
            raise


class _Column:
    """All cells of one combination, on one bench as long as they hold."""

    def __init__(self, combination: Combination, chosen: argparse.Namespace, place: Path, journal: Journal) -> None:
        self._combination, self._chosen, self._place, self._journal = combination, chosen, place, journal
        self._bench: Bench | None = None
        self._benches = 0

    def run(self) -> list[Result]:
        """Run the cells, and tell of each."""
        results = []
        try:
            for fault in _faults(self._combination, self._chosen):
                seed = f"{self._chosen.seed}/{self._combination.name}/{fault.name}"
                result = self._journal.holds(self._combination.name, seed)
                if result is None:
                    result = self._cell(fault, seed)
                    self._journal.add(result)
                print(table.line(result), flush=True)
                results.append(result)
                if result.problems:
                    _explain(result, self._bench)
                    self._close()
        finally:
            self._close()
        return results

    def _close(self) -> None:
        bench, self._bench = self._bench, None
        if bench is not None:
            bench.__exit__(None, None, None)

    def _cell(self, fault: Fault, seed: str) -> Result:
        name = self._combination.name
        try:
            if self._bench is None:
                self._benches += 1
                self._bench = Bench(self._combination, self._place / str(self._benches)).__enter__()
            plan = Plan(self._chosen.count, self._chosen.seconds, self._chosen.scale, self._chosen.patience)
            return run_cell(self._bench, [fault], plan, seed)
        except MissingError as missing:
            if os.environ.get("CI") == "true":
                return Result(name, [fault.name], seed, problems=[str(missing)])
            return Result(name, [fault.name], seed, skipped=str(missing))
        except Exception as error:  # noqa: BLE001 - whatever the harness itself meets, the other cells are to be run
            return Result(name, [fault.name], seed, problems=[f"{type(error).__name__}: {error}"])


def _faults(combination: Combination, chosen: argparse.Namespace) -> list[Fault]:
    found = [fault for fault in all_faults() if not fault.why_not(combination)]
    if chosen.fault:
        found = [fault for fault in found if any(part in fault.name for part in chosen.fault)]
    if chosen.pick:
        picked = Random(f"{chosen.seed}/{combination.name}").sample(found, min(chosen.pick, len(found)))
        found = [fault for fault in found if fault in picked]
    return found


def _explain(result: Result, bench: Bench | None) -> None:
    for problem in result.problems:
        print(f"    {problem}".replace("\n", "\n    "))
    for note in result.notes:
        print(f"    note: {note}")
    if bench is not None:
        print(f"    the log {bench.log} ends with")
        print("      " + bench.tail(_TAIL).replace("\n", "\n      "), flush=True)


def _command(chosen: argparse.Namespace) -> str:
    words = [
        "python",
        "tests/faults",
        "run",
        "--seed",
        chosen.seed,
        "--count",
        str(chosen.count),
        "--seconds",
        f"{chosen.seconds:g}",
    ]
    words += ["--scale", f"{chosen.scale:g}"]
    words += [word for name in chosen.broker or () for word in ("--broker", name)]
    return shlex.join(words)


def _place(said: Path | None) -> Path:
    if said is None:
        place = Path(tempfile.mkdtemp(prefix="siftbell-faults-"))
        place.chmod(0o755)  # PostgreSQL runs as a user of its own
        return place
    said.mkdir(parents=True, exist_ok=True)
    return said.absolute()


def _end(place: Path, *, failed: bool) -> int:
    if not failed:
        shutil.rmtree(place, ignore_errors=True)
    return 1 if failed else 0
