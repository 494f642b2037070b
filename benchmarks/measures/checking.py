"""`siftbell check` on 500 pipelines: how long somebody waits who has changed one of them."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.measure import Figures, Measure, Target
from benchmarks.siftbell import pipeline_file
from benchmarks.work import FILTERS
from benchmarks.workplace import python

PIPELINES: Final = 500
LIMIT: Final = 3.0
"""Seconds that it may take."""


class Checking(Measure):
    """Each pipeline has three filters and two consumers, and a condition and templates that no other has.

    The interpreter's start and all imports are in it. Bytecode is there, as after any first start; the yardstick is a limit,
    so that the ratio says how often the command fits into it.
    """

    name = "check"
    targets: ClassVar = {
        "seconds": Target(
            measure=f"seconds of `siftbell check` on {PIPELINES} pipelines",
            yardstick=f"the limit of {LIMIT:g} s",
            at_least=1,
            aim=3,
            kind="cost",
        )
    }

    def prepare(self, closing: ExitStack) -> None:  # noqa: ARG002 - nothing runs between the rounds
        """Write the files, and let Python write its bytecode."""
        self._place = self.place.new(self.name)
        write_pipelines(self._place / "configs", PIPELINES)
        self._check()

    def siftbell(self) -> Figures:
        """Give the seconds from the process's start to its end."""
        return {"seconds": self._check()}

    def yardstick(self) -> Figures:
        """Give the limit."""
        return {"seconds": LIMIT}

    def _check(self) -> float:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        began = time.perf_counter()
        subprocess.run(
            python("pipeline.cli", "check", str(self._place / "configs")),
            env=environment | {"PYTHONPYCACHEPREFIX": str(self._place / "bytecode")},
            cwd=self._place,
            check=True,
            capture_output=True,
            timeout=120,
        )
        return time.perf_counter() - began


def write_pipelines(directory: Path, count: int) -> None:
    """Write files of pipelines, each with texts of its own."""
    directory.mkdir()
    for number in range(count):
        name = f"team-{number:03d}"
        filters = FILTERS.replace('"test"', f'"{name}"')
        for first in ("{{ severity", "{{ text"):  # of the title, and of the text
            filters = filters.replace(first, f"{name}: {first}")
        hook = f"webhook: {{url: 'https://hooks.example.com/{name}'}}"
        log = f"file: {{path: '{directory.parent}/{name}'}}"
        (directory / f"{name}.yaml").write_text(pipeline_file(hook, log, filters=filters, name=name))
