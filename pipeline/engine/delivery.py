"""The delivery: gives messages to one consumer, several at once, and tells the outcome of each."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Final

import structlog

from pipeline.engine.loop import run_on_loop
from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import AnyConsumer, BatchConsumer, Consumer

log = structlog.get_logger()

CALL_LIMIT: Final = 60.0
"""Seconds that one call of a consumer may take; then the message is held and tried again."""
BATCH_LIMIT: Final = 120.0
"""Seconds after which no further call of a batch is begun; what is left is held and comes back at once."""

Outcomes = dict[str, Exception | None]
"""By message id: None where the other side has the message, else what the consumer raised."""


def deliver(consumer: AnyConsumer, messages: Sequence[Message], *, concurrency: int) -> Outcomes:
    """Give each message to the consumer and tell what became of it; no two may have the same id.

    Never raises for a consumer's or a message's sake, and ends within little more than `BATCH_LIMIT` and `CALL_LIMIT`.
    """
    if isinstance(consumer, BatchConsumer):
        return _at_once(consumer, messages)
    if inspect.iscoroutinefunction(consumer.consume):
        return _asynchronously(consumer, messages, concurrency)
    return _in_threads(consumer, messages, concurrency)


def _at_once(consumer: BatchConsumer[Any], messages: Sequence[Message]) -> Outcomes:
    def all_of_them() -> Outcomes:
        try:
            return _told(consumer.consume_many(messages), messages)
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is the outcome of its messages
            return dict.fromkeys((message.id for message in messages), _as_exception(error))

    pool = ThreadPoolExecutor(1, thread_name_prefix="consumer")
    try:
        return pool.submit(all_of_them).result(BATCH_LIMIT)
    except TimeoutError:
        return dict.fromkeys((message.id for message in messages), _too_slow(BATCH_LIMIT))
    finally:
        pool.shutdown(wait=False)


def _told(failures: Mapping[str, Exception], messages: Sequence[Message]) -> Outcomes:
    """Give what a consumer told of its messages; raises `PermanentError` where it cannot be told what it means."""
    if not isinstance(failures, Mapping):
        raise PermanentError(f"consume_many gave {type(failures).__name__}, not the errors by message id")
    known = {message.id for message in messages}
    for message_id, error in failures.items():
        if message_id not in known or not isinstance(error, Exception):
            raise PermanentError("consume_many gave something else than errors by the ids of its messages")
    return {message.id: failures.get(message.id) for message in messages}


def _asynchronously(consumer: Consumer[Any], messages: Sequence[Message], concurrency: int) -> Outcomes:
    outcomes: Outcomes = {}
    late = _too_slow(BATCH_LIMIT)
    try:
        run_on_loop(_on_loop(consumer, messages, concurrency, outcomes), timeout=BATCH_LIMIT + 1.1 * CALL_LIMIT)
    except TimeoutError:
        log.warning("the event loop of the consumers stands still: one of them blocks it", consumer=repr(consumer))
    return {message.id: outcomes.get(message.id, late) for message in messages}


async def _on_loop(consumer: Consumer[Any], messages: Sequence[Message], concurrency: int, outcomes: Outcomes) -> None:
    turns = asyncio.Semaphore(concurrency)
    end = monotonic() + BATCH_LIMIT

    async def one(message: Message) -> None:
        async with turns:
            if monotonic() > end:
                outcomes[message.id] = _out_of_time()
                return
            try:
                called = consumer.consume(message)
                assert called is not None
                await _within_limit(called)
            except BaseException as error:  # noqa: BLE001 - SystemExit would end the loop, a cancellation fail the whole batch
                outcomes[message.id] = _as_exception(error)
            else:
                outcomes[message.id] = None

    await asyncio.gather(*(one(message) for message in messages))


async def _within_limit(called: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(CALL_LIMIT):
            await called
    except TimeoutError:
        raise _too_slow() from None


def _in_threads(consumer: Consumer[Any], messages: Sequence[Message], concurrency: int) -> Outcomes:
    end = monotonic() + BATCH_LIMIT

    def one(message: Message) -> Exception | None:
        if monotonic() > end:
            return _out_of_time()
        try:
            called = consumer.consume(message)
            if called is not None:  # a `def` that gives what another function's `async def` gave
                run_on_loop(_within_limit(called))
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is the outcome of its message
            return _as_exception(error)
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


def _as_exception(error: BaseException) -> Exception:
    """Give an error that can be an outcome: `sys.exit()` inside a plugin is a bug like any other, a cancellation passes."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        return TemporaryError("the consumer's call was cancelled")
    return PermanentError(f"the consumer raised {type(error).__name__}: {error}")


def _too_slow(limit: float | None = None) -> TemporaryError:
    return TemporaryError(f"the consumer took longer than {limit or CALL_LIMIT:.0f} s")


def _out_of_time() -> TemporaryError:
    return TemporaryError(f"its batch took longer than {BATCH_LIMIT:.0f} s before its turn came", retry_after=0)
