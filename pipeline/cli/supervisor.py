"""The supervisor: keeps the parts of one process tree running, and ends them in order; it knows nothing of what they do."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any, Final

import structlog

from pipeline.cli.parts import Launch, Part, Running

log = structlog.get_logger()

CONFIGURATION: Final = 78
"""The exit code of a part that its configuration does not let start: that ends the tree, save where it ran before."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0
STEADY: Final = 30.0
"""Seconds after which a part that ran counts as having started well: the next pause is the first again."""
HOPELESS: Final = 5
"""From this many deaths in a row on, each is an error in the log; the part is started again all the same."""
PARENT_PIPE: Final = "SIFTBELL_PARENT_PIPE"
"""The variable that tells a part the number of the pipe whose end-of-file means that the supervisor is gone."""


class Supervisor:
    """Starts the parts, starts each again that ends unasked, and stops them stage by stage on SIGTERM or SIGINT.

    Parts stand in sessions of their own, so that a terminal's Ctrl-C reaches the supervisor only. They are started from
    the main thread, for the kernel takes the end of the thread that started a process for the end of its parent.
    """

    def __init__(
        self, parts: Sequence[Part], launch: Launch, *, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        self._parts = parts
        self._launch = launch
        self._pauses = (first_pause, longest_pause)
        self._running: dict[str, Running] = {}
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._early_done = asyncio.Event()
        self._anew: set[str] = set()
        self._code = 0

    def let_late_parts_start(self) -> None:
        """Start the parts that are `late`."""
        self._early_done.set()

    async def restart(self, *names: str) -> None:
        """Have parts finish what is under way and start them again, one after the other in this order."""
        parts = {part.name: part for part in self._parts}
        for name in names:
            process = self._running.get(name)
            if process is None or self._stop.is_set():
                continue
            self._anew.add(name)
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), parts[name].patience)
            except TimeoutError:
                log.warning("killed", parts=name)
                _kill(process.pid)

    async def run(self, started: Callable[[], Coroutine[Any, Any, None]], *, stopping: Callable[[], None] = lambda: None) -> int:
        """Keep the parts running until asked to stop; give the exit code: 0, 78, or 1 where a part had to be killed.

        `started` is run beside them once, `stopping` called just before the first part is asked to stop. What either
        raises ends the parts, and is raised.
        """
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked, number)
        keepers = [asyncio.create_task(self._keep(part, reading)) for part in self._parts]
        first = asyncio.create_task(started())
        try:
            await self._until_stop(first, *keepers)
            stopping()
            await self._end()
            log.info("stopped")
        finally:
            self._stop.set()
            self._early_done.set()
            first.cancel()
            for process in self._running.values():
                _kill(process.pid)
            results = await asyncio.gather(first, *keepers, return_exceptions=True)
            os.close(reading)
            os.close(writing)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self._code

    async def _until_stop(self, *tasks: asyncio.Task[None]) -> None:
        """Wait until asked to stop, or until one of the tasks has raised."""
        watched: set[asyncio.Task[Any]] = {asyncio.create_task(self._stop.wait()), *tasks}
        while not self._stop.is_set():
            done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if any(task.exception() for task in done):
                self._stop.set()

    async def _keep(self, part: Part, pipe: int) -> None:
        """Run one part again and again until it is time to stop."""
        if part.late:
            await self._early_done.wait()
        deaths, ran_before = 0, False
        while not self._stop.is_set():
            began = monotonic()
            code = await self._once(part, pipe)
            if code == CONFIGURATION and not ran_before:
                self._code = CONFIGURATION
                self._stop.set()
            if self._stop.is_set():
                return
            ran_before = True
            if part.name in self._anew:
                self._anew.discard(part.name)
                deaths = 0
                continue
            deaths = 1 if monotonic() - began > STEADY else deaths + 1
            pause = min(self._pauses[0] * 2 ** min(deaths - 1, 20), self._pauses[1])
            tell = log.error if deaths >= HOPELESS else log.warning
            tell(f"a part {_ended(code)}; it is started again", which=part.name, after=f"{pause:g} s", deaths=deaths)
            await self._stop_within(pause)

    async def _stop_within(self, seconds: float) -> None:
        waiting = asyncio.create_task(self._stop.wait())
        await asyncio.wait({waiting}, timeout=seconds)
        waiting.cancel()

    async def _once(self, part: Part, pipe: int) -> int:
        """Run one part until it ends, and give its exit code; nothing that it had started is left then."""
        process = await self._launch(replace(part, inherited={**part.inherited, PARENT_PIPE: pipe}))
        self._running[part.name] = process
        log.debug("started", which=part.name, pid=process.pid)
        if self._stop.is_set():
            _kill(process.pid)  # the others were asked to stop before this one was there
        code = await process.wait()
        del self._running[part.name]
        _kill(process.pid)
        return code

    def _asked(self, number: int) -> None:
        if self._stop.is_set():
            log.warning("ending at once; what was under way is done again at the next start")
            self._hurry.set()
        log.info("stopping", signal=signal.Signals(number).name)
        self._stop.set()

    async def _end(self) -> None:
        """Ask the parts to stop, stage by stage; kill what does not within its patience."""
        for stage in sorted({part.stage for part in self._parts}):
            parts = [part for part in self._parts if part.stage == stage and part.name in self._running]
            if not parts:
                continue
            patience = max(part.patience for part in parts)
            log.info("waiting for parts to finish", parts=", ".join(part.name for part in parts), at_most=f"{patience:g} s")
            waiting = {part.name: self._running[part.name] for part in parts}
            for process in waiting.values():
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            await self._gone(waiting, patience)

    async def _gone(self, waiting: Mapping[str, Running], patience: float) -> None:
        gone = [asyncio.create_task(process.wait()) for process in waiting.values()]
        hurry = asyncio.create_task(self._hurry.wait())
        both: asyncio.Future[Any] = asyncio.gather(*gone)
        watched: set[asyncio.Future[Any]] = {both, hurry}
        await asyncio.wait(watched, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not both.done():
            self._code = 1
            late = [name for name, process in waiting.items() if process.returncode is None]
            log.warning("killed", parts=", ".join(late))
            for name in late:
                _kill(waiting[name].pid)
        await both


def _kill(group: int) -> None:
    """Kill what is left of a part: its own process, and what it had started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
