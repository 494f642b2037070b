"""How long the command takes to begin: `siftbell --help` against a bare start of the interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.measure import Figures, Measure, Target

STARTS: Final = 20


class Starting(Measure):
    """Each side is the median of twenty starts, from the fork to the end of the process, of the same virtual environment."""

    name = "starting"
    guarded = True
    targets: ClassVar = {
        "help": Target(
            measure="seconds that `siftbell --help` takes",
            yardstick="a Python start, `python -c pass`",
            at_least=1 / 3,
            aim=1 / 2,
            kind="cost",
        )
    }

    def prepare(self, closing: ExitStack) -> None:
        """Have both sides' files in the page cache, and compiled."""
        assert closing is not None
        self.siftbell()
        self.yardstick()

    def siftbell(self) -> Figures:
        """Give the seconds of the command, as it is installed."""
        return {"help": _median([str(Path(sys.executable).with_name("siftbell")), "--help"])}

    def yardstick(self) -> Figures:
        """Give the seconds of a program that does nothing."""
        return {"help": _median([sys.executable, "-c", "pass"])}


def _median(command: list[str]) -> float:
    taken = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
