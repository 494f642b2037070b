"""A part of the process tree: what the supervisor is told of it, and how it is started as a command of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

STDERR: Final = 2
"""Where a part's stdout goes: what it says is no data of the supervisor's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the tree. `stage` orders the stopping: all parts of stage 0 first; `patience` bounds it, in seconds."""

    name: str
    arguments: Sequence[str]
    """What follows the command's name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it has beside the supervisor's own environment."""
    inherited: Mapping[str, int] = field(default_factory=dict)
    """File descriptors that the part gets, by the variable that tells it each one's number."""
    stage: int = 0
    patience: float = 30.0
    late: bool = False
    """True: started only after `Supervisor.let_late_parts_start`, so that the first part has the machine to itself."""


class Running(Protocol):
    """A part's process, which is a child of this one; asyncio's own subprocesses are such."""

    @property
    def pid(self) -> int:
        """Its id, which is its group's and its session's as well."""

    @property
    def returncode(self) -> int | None:
        """How it ended; a signal's number is negative. None while it runs."""

    async def wait(self) -> int:
        """Wait for its end, and give the code."""

    def send_signal(self, signal: int, /) -> None:
        """Send it a signal; raises ProcessLookupError where it is gone."""


Launch: TypeAlias = Callable[[Part], Awaitable[Running]]
"""Starts a part in a session of its own, as a child of this process: stdin empty, stdout going to stderr."""


class Launching(Protocol):
    """A way to start parts."""

    async def launch(self, part: Part) -> Running:
        """Start a part, as `Launch` says."""

    def close(self) -> None:
        """Start no more; called when all have ended."""


class Commands:
    """Starts each part as a command, which the part's arguments are added to."""

    def __init__(self, *command: str) -> None:
        self._command = command

    async def launch(self, part: Part) -> Running:
        """Start a part."""
        numbers = {name: str(number) for name, number in part.inherited.items()}
        return await asyncio.create_subprocess_exec(
            *self._command,
            *part.arguments,
            env={**os.environ, **part.environment, **numbers},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=STDERR,
            pass_fds=tuple(part.inherited.values()),
            start_new_session=True,
        )

    def close(self) -> None:
        """Nothing is kept."""
