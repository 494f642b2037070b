"""A consumer that is down for an accelerated hour: what that is to the others, side by side, and what comes afterwards."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from harness.bench import Bench, Combination
from harness.cell import settle
from harness.ledger import Ledger
from harness.load import Load
from harness.pipelines import CONSUMERS, Waits
from harness.sink import Mood

ACCELERATION: Final = 60
"""An hour's outage lasts a minute: waits between attempts, 1 s to 10 min, are shortened by as much."""
WAITS: Final = Waits(first=f"{1000 // ACCELERATION}ms", longest=f"{600 // ACCELERATION}s")
AROUND: Final = 10.0
"""Seconds of load before and after the outage."""
DOWN: Final = "alpha"
LIMIT: Final = 2.0
"""How many times as long as without the outage the others may take."""
_VARIANTS: Final[Sequence[tuple[Mood, str]]] = (("refuses", "refuses connections"), ("hangs", "never answers"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    parser.add_argument("--lasts", type=float, default=60.0, help="seconds that the consumer is down")
    parser.add_argument("--rate", type=int, default=100, help="messages a second, to each of both trees")
    parser.add_argument("--seed", default="1", help="the seed of the load")


def measure(combination: Combination, place: Path, chosen: argparse.Namespace) -> tuple[str, list[str]]:
    """Run both variants; gives a table and what was wrong."""
    about = (
        f"On {combination.name}, {chosen.rate} messages a second to each of two trees side by side; in one, `{DOWN}` is down "
        f"for {chosen.lasts:g} s with waits shortened {ACCELERATION} times ({WAITS.first} to {WAITS.longest})."
    )
    lines = [
        about,
        "",
        f"| {DOWN} | consumer | p50 without | p50 with | p99 without | p99 with | lost | out of order |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    problems: list[str] = []
    for mood, words in _VARIANTS:
        with ExitStack() as closing:
            benches = [
                closing.enter_context(Bench(combination, place / f"{mood}-{name}", ordered=CONSUMERS[:2], waits=WAITS))
                for name in ("without", "with")
            ]
            lines += _variant(benches, mood, words, chosen, problems)
    return "\n".join(lines), problems


def _variant(benches: list[Bench], mood: Mood, words: str, chosen: argparse.Namespace, problems: list[str]) -> list[str]:
    ledgers = [bench.new_ledger() for bench in benches]
    seconds = chosen.lasts + 2 * AROUND
    count = int(chosen.rate * seconds)
    with ExitStack() as closing:
        loads = [
            closing.enter_context(Load(bench.url, bench.key, ledger, count=count, seconds=seconds, seed=chosen.seed))
            for bench, ledger in zip(benches, ledgers, strict=True)
        ]
        time.sleep(AROUND)
        start = time.monotonic()
        benches[1].sinks[DOWN].become(mood)
        time.sleep(chosen.lasts)
        end = time.monotonic()
        benches[1].sinks[DOWN].become("takes")
        for load in loads:
            load.finish(seconds)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: settle(pair[0], pair[1], 90), zip(benches, ledgers, strict=True)))
    without, with_outage = ledgers
    lines = []
    for name in CONSUMERS:
        figures = [_percentile(ledger.latencies(name, start, end), share) for share in (0.5, 0.99) for ledger in ledgers]
        verdict = with_outage.verdict()
        lost, inverted = len(verdict.lost.get(name, ())), verdict.inversions.get(name)
        order = "-" if inverted is None else str(inverted)
        shown = [f"{1000 * figure:.1f} ms" for figure in figures] if name != DOWN else ["-"] * len(figures)
        lines.append(f"| {words} | {name} | {' | '.join(shown)} | {lost} | {order} |")
        if name != DOWN:
            problems += _too_slow(words, name, figures)
        if lost or inverted:
            problems.append(f"{DOWN} {words}: {lost} lost and {order} out of order at {name}")
    problems += [f"without the outage: {names} lost" for names in _lost(without)]
    return lines


def _too_slow(words: str, name: str, figures: Sequence[float]) -> list[str]:
    before50, after50, before99, after99 = figures
    return [
        f"{DOWN} {words}: the {which} of {name} is {after / before:.1f} times what it is without"
        for which, before, after in (("p50", before50, after50), ("p99", before99, after99))
        if after > LIMIT * before
    ]


def _lost(ledger: Ledger) -> list[str]:
    return [f"{len(missing)} at {name}" for name, missing in ledger.verdict().lost.items()]


def _percentile(values: Sequence[float], share: float) -> float:
    """Give a percentile of sorted values; nan where there is none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")
