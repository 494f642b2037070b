"""When messages are due, and when they came: what both sides of a measure of latency share.

All processes run on one machine, whose monotonic clock is the same for each of them.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pydantic import Field

from pipeline import Config, Consumer, Message

SEED: Final = 11
OUTSTANDING: Final = 128
"""Messages that a flood has under way at most: so many keep either side busy."""
LEAD_IN: Final = 1_000_000_000
"""Nanoseconds in which a sender's connections and caches become warm: they are no part of the measured latencies."""
_LINE: Final = "{:019d} {:019d}\n"
_LENGTH: Final = len(_LINE.format(0, 0))


def schedule(rate: float, seconds: float) -> Iterator[int]:
    """Give the moments at which messages are due, in nanoseconds, from now on; the same gaps for everyone who asks.

    Messages come as they do in life, each independently of the others (a Poisson process). A latency counts from the moment when
    a message was due, not from when its sender got round to it: what makes the sender late is part of the wait.
    """
    gaps = random.Random(SEED)  # noqa: S311 - no secret
    due = time.monotonic_ns()
    end = due + int(seconds * 1e9)
    while (due := due + int(gaps.expovariate(rate) * 1e9)) < end:
        yield due


class Stamps:
    """A file of moments: a line for each message, when it was due and when it came."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def came(self, due: int) -> None:
        """Note that a message is here now."""
        os.write(self._descriptor, _LINE.format(due, time.monotonic_ns()).encode())


def count(path: Path) -> int:
    """Give the number of lines there are by now."""
    return path.stat().st_size // _LENGTH if path.exists() else 0


def latencies(path: Path, first: int) -> list[float]:
    """Give the seconds from due to come, in order of size, leaving out the `first` lines and those of the lead-in."""
    moments = [tuple(map(int, line.split())) for line in path.read_text().splitlines()[first:]]
    begin = min(due for due, _ in moments) + LEAD_IN
    return sorted((came - due) / 1e9 for due, came in moments if due >= begin)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest value that so large a share of all does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]


def throughput(path: Path, first: int) -> float:
    """Give the messages a second that came, leaving out the `first` lines."""
    came = sorted(int(line.split()[1]) for line in path.read_text().splitlines()[first:])
    return (len(came) - 1) / (came[-1] - came[0]) * 1e9


class StampConfig(Config):
    """The options of `Stamp`."""

    path: Path = Field(description="The file of moments.")


class Stamp(Consumer[StampConfig]):
    """Notes when each message comes; the message's key says when it was due."""

    def open(self) -> None:
        """Open the file."""
        self._stamps = Stamps(self.config.path)

    def consume(self, message: Message) -> None:
        """Write a line."""
        assert message.key is not None
        self._stamps.came(int(message.key, 16))
