"""The pace of a consumer with a rate: whose turn it is, over all workers together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pipeline.engine.retry import NotTriedError
from pipeline.memory import MemoryBackend
from pipeline.message import Message
from pipeline.spec.model import ConsumerStep
from pipeline.telemetry import RATE_WAITS

PATIENCE: Final = timedelta(seconds=1)
"""A message whose turn comes within this time waits for it in the worker; any other in the store."""
EARLY: Final = timedelta(milliseconds=500)
"""A message that waited in the store is brought back so long before its turn: the way through the queue takes its time."""

Turns = dict[str, float]
"""By message id: the moment (`time.monotonic`) before which the message is not to be sent."""


def take_turns(
    memory: MemoryBackend, pipeline: str, step: ConsumerStep, messages: Sequence[Message], *, again: int, now: datetime
) -> tuple[Turns, dict[str, NotTriedError]]:
    """Give the turns of those messages that may go now or shortly, and say of the others when they come back.

    The first `again` of the messages have waited before, and go before those that come for the first time. May raise
    `TemporaryError` where the memory is away.
    """
    if step.rate is None:
        return {}, {}
    answer = memory.reserve(pipeline, step.label, step.rate.interval, PATIENCE, again=again, fresh=len(messages) - again)
    start, interval = time.monotonic(), step.rate.interval.total_seconds()
    turns = {
        message.id: start + max(0.0, answer.first.total_seconds() + index * interval)
        for index, message in enumerate(messages[: answer.granted])
    }
    late = messages[answer.granted :]
    waits: dict[str, NotTriedError] = {}
    for index, message in enumerate(late):
        turn = now + answer.line + index * step.rate.interval
        text = f"its turn at a rate of {step.rate} comes at about {turn:%Y-%m-%d %H:%M:%S} UTC"
        waits[message.id] = NotTriedError(text, until=turn - EARLY, counts=False)
    if late:
        RATE_WAITS.labels(pipeline, step.label).inc(len(late))
    return turns, waits
