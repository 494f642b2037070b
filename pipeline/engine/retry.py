"""When a message that could not be filtered or delivered is tried again, and when it is given up."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipeline.errors import TemporaryError
from pipeline.present import between
from pipeline.spec.model import Retry


class NotTriedError(TemporaryError):
    """The engine did not give the message to its consumer: it comes back at `until` (at once where it is None).

    It keeps its attempt. `counts` says whether it is given up when it has waited for as long as `retry` lasts: true
    where the consumer's service is to blame, false where the message only waits for its turn. `key` is the held row's.
    """

    def __init__(self, text: str, *, until: datetime | None = None, key: str = "", counts: bool = True) -> None:
        super().__init__(f"not tried: {text}")
        self.key = key
        self.because = text
        self.until = until
        self.counts = counts


def next_attempt(error: TemporaryError, *, attempt: int, since: datetime, now: datetime, retry: Retry) -> datetime | None:
    """Say when to try again after the `attempt`-th failure, or None when `retry` has run out since the first one.

    Exponential backoff with full jitter; where the other side named a wait, that wait and up to a tenth more, so that
    messages held back together do not all return at once. The last attempt is made when the time runs out.
    """
    end = since + retry.lasting
    if now >= end:
        return None
    asked = error.retry_after
    wait = between(0, backoff(attempt, retry)) if asked is None else asked_for(asked)
    left = (end - now).total_seconds()
    return now + timedelta(seconds=max(0.0, min(left, wait)))  # in this order a NaN is the time that is left


def next_probe(openings: int, retry_after: float | None, *, now: datetime, retry: Retry) -> datetime:
    """Say when a service is tried again whose circuit was opened the `openings`-th time in a row.

    Exponential backoff of which at least half is waited, or longer where the other side said so; never longer than
    `retry` lasts, so that no message is given up without a look at the service in its time.
    """
    wait = backoff(openings, retry) * between(0.5, 1)
    if retry_after is not None:
        wait = max(wait, asked_for(retry_after))
    return now + timedelta(seconds=max(0.0, min(retry.lasting.total_seconds(), wait)))  # a NaN is the longest wait


def backoff(attempt: int, retry: Retry) -> float:
    """Give the longest wait behind the `attempt`-th failure, in seconds."""
    return min(retry.longest.total_seconds(), retry.first.total_seconds() * 2.0 ** min(attempt - 1, 30))


def asked_for(seconds: float) -> float:
    """Give the wait that the other side asked for, and up to a tenth more."""
    return seconds * between(1, 1.1)
