"""Processes of the machine: what descends from what, and to which part of a Siftbell tree each belongs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class TooLateError(AssertionError):
    """Something that should have happened did not, within its time."""


def until(condition: Callable[[], T], what: str, within: float = 60, *, look: float = 0.02) -> T:
    """Look every `look` seconds until something is true, and give it; raises `TooLateError`."""
    end = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > end:
            raise TooLateError(f"not within {within:g} s: {what}")
        time.sleep(look)
    return found


def parents() -> dict[int, int]:
    """Give the parent of every process that is no zombie."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(entry.name)] = int(fields[1])
    return found


def descendants(pid: int) -> list[int]:
    """Give a process and everything that descends from it, parents first."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def part_of(pid: int) -> str:
    """Give the name of the part of a Siftbell tree that a process belongs to, as `ps` shows it; something else for any other."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip()
    except OSError:
        return ""


def leaders(supervisor: int) -> dict[str, int]:
    """Give the process of each part that a supervisor has started itself, by the part's name."""
    return {part: pid for pid, parent in parents().items() if parent == supervisor and (part := part_of(pid))}


def children(supervisor: int, part: str) -> list[int]:
    """Give the processes that a part has started."""
    leader = leaders(supervisor).get(part)
    return [] if leader is None else descendants(leader)[1:]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes; those that are gone are left out."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def gone(pids: Iterable[int]) -> bool:
    """Tell whether none of the processes runs any more."""
    running = parents()
    return not any(pid in running for pid in pids)
