"""When a message that could not be filtered or delivered is tried again, and when it is given up."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Final

from pipeline.errors import TemporaryError
from pipeline.spec.model import Retry

FIRST: Final = 1.0
"""Seconds: the longest wait before the second attempt; doubles with each."""
LONGEST: Final = 600.0
"""Seconds: the longest wait between two attempts, where the other side asks for no longer one."""


def next_attempt(error: TemporaryError, *, attempt: int, since: datetime, now: datetime, retry: Retry) -> datetime | None:
    """Say when to try again after the `attempt`-th failure, or None when `retry` has run out since the first one.

    Exponential backoff with full jitter; where the other side named a wait, that wait and up to a tenth more, so that
    messages held back together do not all return at once. The last attempt is made when the time runs out.
    """
    end = since + retry.lasting
    if now >= end:
        return None
    if error.retry_after is None:
        wait = random.uniform(0, min(LONGEST, FIRST * 2 ** min(attempt - 1, 30)))  # noqa: S311 - jitter, not a secret
    else:
        wait = error.retry_after * random.uniform(1, 1.1)  # noqa: S311 - jitter, not a secret
    left = (end - now).total_seconds()
    return now + timedelta(seconds=max(0.0, min(left, wait)))  # in this order a NaN is the time that is left
