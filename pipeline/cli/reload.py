"""A change of the configuration while a tree runs: checked first, then every part is started anew with it, one by one."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from pipeline.spec.copies import copy, fingerprint

log = structlog.get_logger()

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the files; a change is taken up when two looks saw the same."""


class LastGood:
    """The last configuration without errors: a copy of its files, which the parts of a tree load.

    A part that is started again while somebody is at the files, or has left a mistake in them, comes back with this one.
    """

    def __init__(self, sources: Sequence[Path], directory: Path) -> None:
        self._sources = tuple(sources)
        self._directory = directory
        self._seen = ""
        self._current = directory / "current"

    @property
    def paths(self) -> tuple[Path, ...]:
        """What the parts load, now and after each change."""
        return tuple(
            self._current / str(index) / ("" if source.is_dir() else source.name) for index, source in enumerate(self._sources)
        )

    def take(self) -> None:
        """Take the files as they are; raises OSError for those that cannot be copied."""
        self._seen = fingerprint(self._sources)
        self._promote(self._candidate().place)

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Look at the files until cancelled; call `changed` after each change that is without errors."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            seen = await asyncio.to_thread(fingerprint, self._sources)
            if seen == self._seen:
                continue
            await asyncio.sleep(LOOK_EVERY)
            if await asyncio.to_thread(fingerprint, self._sources) != seen:
                continue  # somebody is at it
            self._seen = seen
            if self._place() == self._current.resolve():
                log.info("the configuration is again the one that runs")
                continue
            try:
                candidate = self._candidate()
                errors = await _errors(candidate.paths)
            except OSError as error:
                errors = f"the files cannot be read: {error.strerror}"
            if errors:
                log.error("the changed configuration has errors; the one before keeps running", problems=errors)
                shutil.rmtree(self._place(), ignore_errors=True)
                continue
            self._promote(candidate.place)
            log.info("the configuration has changed; the parts are started anew with it, one by one")
            await changed()

    def _place(self) -> Path:
        return (self._directory / self._seen).resolve()

    def _candidate(self) -> _Candidate:
        """Copy the files beside what runs."""
        place = self._place()
        shutil.rmtree(place, ignore_errors=True)
        return _Candidate(place, copy(self._sources, place))

    def _promote(self, candidate: Path) -> None:
        before = self._current.resolve()
        new = self._directory / "next"
        new.unlink(missing_ok=True)
        new.symlink_to(candidate.name)
        new.replace(self._current)
        if before not in {candidate.resolve(), self._current}:
            shutil.rmtree(before, ignore_errors=True)


class _Candidate(NamedTuple):
    place: Path
    paths: tuple[Path, ...]


async def _errors(paths: Sequence[Path]) -> str:
    """Have `siftbell check` judge a copy, in a process of its own; give what it says is wrong, empty where nothing is."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline.cli", "check", *map(str, paths)),
        env={**os.environ, "NO_COLOR": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    # In the log a problem is a line: where and what. The excerpts of the file below it, which are indented, are for a terminal.
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip() and not line.startswith(" ")]
    return "; ".join(lines) if process.returncode else ""
