"""What fails a clock at each tick, told to the person who reads the log: at once, once a minute, and when it is over."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import Final

import structlog

from pipeline.errors import PipelineError

log = structlog.get_logger()

AGAIN: Final = 60.0
"""Seconds after which a failure that goes on is told again."""
MOST_TOLD: Final = 50
"""Failures of different words that are remembered; words that change each time must not fill the memory."""


class Trouble:
    """The failures of a clock, which tries again by itself several times a second. For one thread."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._since = 0.0
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Note a failure, and tell of it where nobody has heard of the like for a minute; of a bug with its traceback."""
        now = monotonic()
        if not self._failures:
            self._since = now
        self._failures += 1
        words = f"{type(error).__name__}: {error}"
        if now - self._told.get(words, -inf) < AGAIN:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[words] = now
        if isinstance(error, PipelineError):
            log.warning("the clock cannot work, and tries again", error=str(error), failures=self._failures)
        else:
            log.error("the clock cannot work, and tries again", failures=self._failures, exc_info=error)

    def over(self) -> None:
        """Note that it works, and say so where it did not before."""
        if self._failures:
            log.info("the clock works again", after=f"{monotonic() - self._since:.0f} s", failures=self._failures)
            self._told.clear()
            self._failures = 0
