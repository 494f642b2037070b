"""The delivery: gives messages to one consumer, several at once, and tells the outcome of each."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Final

from pipeline.engine.loop import run_on_loop
from pipeline.errors import TemporaryError
from pipeline.message import Message
from pipeline.plugin import AnyConsumer, BatchConsumer, Consumer

CALL_LIMIT: Final = 60.0
"""Seconds that one call of a consumer may take; then the message is held and tried again."""
BATCH_LIMIT: Final = 120.0
"""Seconds after which no further call of a batch is begun; what is left is held and comes back at once."""

Outcomes = dict[str, Exception | None]
"""By message id: None where the other side has the message, else what the consumer raised."""


def deliver(consumer: AnyConsumer, messages: Sequence[Message], *, concurrency: int) -> Outcomes:
    """Give each message to the consumer and tell what became of it. Never raises for a consumer's or a message's sake."""
    if isinstance(consumer, BatchConsumer):
        return _at_once(consumer, messages)
    if inspect.iscoroutinefunction(consumer.consume):
        return run_on_loop(_on_loop(consumer, messages, concurrency))
    return _in_threads(consumer, messages, concurrency)


def _at_once(consumer: BatchConsumer[Any], messages: Sequence[Message]) -> Outcomes:
    try:
        failures = consumer.consume_many(messages)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is the outcome of its messages
        return {message.id: error for message in messages}
    return {message.id: failures.get(message.id) for message in messages}


async def _on_loop(consumer: Consumer[Any], messages: Sequence[Message], concurrency: int) -> Outcomes:
    turns = asyncio.Semaphore(concurrency)
    end = monotonic() + BATCH_LIMIT

    async def one(message: Message) -> Exception | None:
        async with turns:
            if monotonic() > end:
                return _out_of_time()
            try:
                called = consumer.consume(message)
                assert called is not None
                async with asyncio.timeout(CALL_LIMIT):
                    await called
            except TimeoutError:
                return _too_slow()
            except Exception as error:  # noqa: BLE001 - whatever a plugin raises is the outcome of its message
                return error
            return None

    outcomes = await asyncio.gather(*(one(message) for message in messages))
    return {message.id: outcome for message, outcome in zip(messages, outcomes, strict=True)}


def _in_threads(consumer: Consumer[Any], messages: Sequence[Message], concurrency: int) -> Outcomes:
    end = monotonic() + BATCH_LIMIT

    def one(message: Message) -> Exception | None:
        if monotonic() > end:
            return _out_of_time()
        try:
            consumer.consume(message)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is the outcome of its message
            return error
        return None

    pool = ThreadPoolExecutor(min(concurrency, len(messages)), thread_name_prefix="consumer")
    calls = {message.id: pool.submit(one, message) for message in messages}
    outcomes: Outcomes = {}
    for message_id, call in calls.items():
        try:
            outcomes[message_id] = call.result(max(0.0, end + CALL_LIMIT - monotonic()))
        except TimeoutError:
            call.cancel()
            outcomes[message_id] = _too_slow()
    pool.shutdown(wait=False, cancel_futures=True)
    return outcomes


def _too_slow() -> TemporaryError:
    return TemporaryError(f"the consumer took longer than {CALL_LIMIT:.0f} s")


def _out_of_time() -> TemporaryError:
    return TemporaryError(f"its batch took longer than {BATCH_LIMIT:.0f} s before its turn came", retry_after=0)
