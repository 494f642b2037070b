"""A measure: Siftbell and its yardstick, taken in turns, and what the ratio of the two has to be."""

from __future__ import annotations

import itertools
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.workplace import Workplace

Figures = Mapping[str, float]
"""What one side of a measure came to in one round, by the target's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One line of the table. Every ratio is written so that more is better, whatever is measured.

    `rate`: Siftbell's figure divided by the yardstick's. `cost` (seconds, bytes): the yardstick's divided by Siftbell's, so
    that "at most twice as long" is a ratio of at least 0.5.
    """

    measure: str
    """Its name in `results.json` and in the table; says what is measured, and the unit."""
    yardstick: str
    at_least: float
    aim: float
    kind: Literal["rate", "cost"] = "rate"

    def ratio(self, ours: float, yardstick: float) -> float:
        """Give how Siftbell compares."""
        return ours / yardstick if self.kind == "rate" else yardstick / ours


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of a target: the medians of the rounds' ratios and figures, and the lowest and highest ratio."""

    target: Target
    ratio: float
    low: float
    high: float
    ours: float
    yardstick: float
    rounds: int

    @property
    def met(self) -> bool:
        """Whether the target's `at_least` is reached."""
        return self.ratio >= self.target.at_least


class Measure(ABC):
    """What is measured together: one set-up, one or several targets.

    `prepare` is called once, and may put what has to be closed on `closing`. `siftbell` and `yardstick` are then called in
    turns, `turns` times a round each, inside of a `round`; they give a figure for every target, and a round's is the mean of its
    turns. Neither may still be using the processor when it returns.
    """

    name: ClassVar[str]
    """What `--only` takes."""
    targets: ClassVar[Mapping[str, Target]]
    guarded: ClassVar[bool] = False
    """Whether `bench-short` watches over it."""
    turns: ClassVar[int] = 1
    """How often a round takes both sides. Where turns are short, a neighbour on the machine slows both."""
    extra: ClassVar[bool] = False
    """Whether it is beside the table: taken only where `--only` names it."""

    def __init__(self, place: Workplace, *, scale: float = 1.0) -> None:
        self.place = place
        self.scale = scale
        """How much to do: 1 for figures to publish, less for a quick look. Ratios must not depend on it much."""

    @abstractmethod
    def prepare(self, closing: ExitStack) -> None:
        """Start what both sides need, and warm both up."""

    @contextmanager
    def round(self) -> Iterator[None]:
        """Keep running what the turns of one round share, new in each round and warm."""
        yield

    @abstractmethod
    def siftbell(self) -> Figures:
        """Measure Siftbell once."""

    @abstractmethod
    def yardstick(self) -> Figures:
        """Measure the yardstick once."""


def rounds_of(measure: Measure, count: int) -> dict[str, list[tuple[float, float]]]:
    """Take both sides in `count` rounds, and give (ours, yardstick) by target; who comes first changes from turn to turn."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in measure.targets}
    turns = itertools.count()
    with ExitStack() as closing:
        measure.prepare(closing)
        for _ in range(count):
            ours: list[Figures] = []
            yardstick: list[Figures] = []
            with measure.round():
                for turn in itertools.islice(turns, measure.turns):
                    sides = [(ours, measure.siftbell), (yardstick, measure.yardstick)]
                    for figures, take in reversed(sides) if turn % 2 else sides:
                        figures.append(take())
            for name in measure.targets:
                taken[name].append((_mean(ours, name), _mean(yardstick, name)))
    return taken


def _mean(turns: Sequence[Figures], name: str) -> float:
    return statistics.fmean(figures[name] for figures in turns)


def row(target: Target, taken: Sequence[tuple[float, float]]) -> Row:
    """Give the outcome of a target's rounds."""
    ratios = [target.ratio(ours, yardstick) for ours, yardstick in taken]
    return Row(
        target=target,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        ours=statistics.median(ours for ours, _ in taken),
        yardstick=statistics.median(yardstick for _, yardstick in taken),
        rounds=len(taken),
    )
