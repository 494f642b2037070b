"""The delivery: gives messages to one consumer, several at once, and tells the outcome of each."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import structlog

from pipeline.engine.loop import run_on_loop
from pipeline.engine.retry import NotTriedError
from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import AnyConsumer, BatchConsumer, Consumer

log = structlog.get_logger()
T = TypeVar("T")

CALL_LIMIT: Final = 60.0
"""Seconds that one call of a consumer may take; then the message is held and tried again."""
BATCH_LIMIT: Final = 120.0
"""Seconds after which no further call of a batch is begun; what is left is held and comes back at once."""

Outcomes = dict[str, Exception | None]
"""By message id: None where the other side has the message, else what the consumer raised."""

_places: Final[WeakKeyDictionary[AnyConsumer, asyncio.Semaphore]] = WeakKeyDictionary()
_pools: Final[WeakKeyDictionary[AnyConsumer, ThreadPoolExecutor]] = WeakKeyDictionary()
"""What all batches of a consumer share in this process, so that it has no more calls under way than it bears; first come, first
served. A plugin is a process's own, and so are these."""


class Fuse:
    """Breaks when so many calls in a row failed with a temporary error: no further call of the batch is begun then."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._noting = threading.Lock()
        self.failures = 0
        """Temporary errors since the last success."""
        self.answered = False
        """Whether there was a success."""
        self.last: TemporaryError | None = None

    @property
    def blown(self) -> bool:
        """Whether the consumer is to be left alone."""
        return self.failures >= self._limit

    def note(self, outcome: Exception | None) -> Exception | None:
        """Count a call's outcome, and give it back. What is no temporary error tells nothing of the other side's health."""
        with self._noting:
            if outcome is None:
                self.failures, self.answered = 0, True
            elif isinstance(outcome, TemporaryError):
                self.failures += 1
                if self.last is None or (outcome.retry_after or 0) >= (self.last.retry_after or 0):
                    self.last = outcome
        return outcome


@dataclass(frozen=True, slots=True)
class _Course:
    """What holds for the calls of one batch."""

    fuse: Fuse
    turns: Mapping[str, float]
    end: float

    def refusal(self) -> NotTriedError | None:
        """Say why no further call is begun."""
        if self.fuse.blown:
            return NotTriedError(f"the calls before it failed: {self.fuse.last}")
        return _out_of_time() if monotonic() > self.end else None

    def wait(self, message: Message) -> float:
        """Give the seconds until a message's turn."""
        return max(0.0, self.turns.get(message.id, 0.0) - monotonic())


def deliver(
    consumer: AnyConsumer,
    messages: Sequence[Message],
    *,
    concurrency: int,
    fuse: Fuse | None = None,
    turns: Mapping[str, float] | None = None,
) -> Outcomes:
    """Give each message to the consumer and tell what became of it; no two may have the same id.

    Never raises for a consumer's or a message's sake, and ends within little more than `BATCH_LIMIT` and `CALL_LIMIT`.
    So many calls are under way at once as `concurrency` says, those of the consumer's other batches in this process included.
    A message is not given before its turn; what was not given, as the fuse blew or time ran out, is `NotTriedError`.
    """
    course = _Course(fuse or Fuse(len(messages) + 1), turns or {}, monotonic() + BATCH_LIMIT)
    if not isinstance(consumer, Consumer) or (isinstance(consumer, BatchConsumer) and consumer.takes_batches(consumer.config)):
        return _at_once(consumer, messages, concurrency, course)
    concurrency = min(concurrency, consumer.at_once or concurrency)
    if inspect.iscoroutinefunction(consumer.consume):
        return _asynchronously(consumer, messages, concurrency, course)
    return _in_threads(consumer, messages, concurrency, course)


def _at_once(consumer: BatchConsumer[Any], messages: Sequence[Message], concurrency: int, course: _Course) -> Outcomes:
    if wait := max(map(course.wait, messages)):
        time.sleep(wait)
    outcomes = _all_at_once(consumer, messages, concurrency)
    # It was one call: a success of one message is its success, and without one a temporary error its failure.
    told = max(outcomes.values(), key=lambda error: (error is None, isinstance(error, TemporaryError)))
    course.fuse.note(told)
    return outcomes


def _all_at_once(consumer: BatchConsumer[Any], messages: Sequence[Message], concurrency: int) -> Outcomes:
    def all_of_them() -> Outcomes:
        try:
            called = consumer.consume_many(messages)
            if inspect.isawaitable(called):
                called = run_on_loop(_within_limit(called, BATCH_LIMIT))
            return _told(called, messages)
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is the outcome of its messages
            return dict.fromkeys((message.id for message in messages), _as_exception(error))

    call = _threads(consumer, concurrency).submit(all_of_them)
    try:
        return call.result(BATCH_LIMIT)
    except TimeoutError:
        if call.cancel():
            return dict.fromkeys((message.id for message in messages), _out_of_time())
        _pools.pop(consumer, None)
        return dict.fromkeys((message.id for message in messages), _too_slow(BATCH_LIMIT))


def _told(failures: Mapping[str, Exception], messages: Sequence[Message]) -> Outcomes:
    """Give what a consumer told of its messages; raises `PermanentError` where it cannot be told what it means."""
    if not isinstance(failures, Mapping):
        raise PermanentError(f"consume_many gave {type(failures).__name__}, not the errors by message id")
    known = {message.id for message in messages}
    for message_id, error in failures.items():
        if message_id not in known or not isinstance(error, Exception):
            raise PermanentError("consume_many gave something else than errors by the ids of its messages")
    return {message.id: failures.get(message.id) for message in messages}


def _asynchronously(consumer: Consumer[Any], messages: Sequence[Message], concurrency: int, course: _Course) -> Outcomes:
    outcomes: Outcomes = {}
    try:
        run_on_loop(_on_loop(consumer, messages, concurrency, course, outcomes), timeout=BATCH_LIMIT + 1.1 * CALL_LIMIT)
    except TimeoutError:
        _places.pop(consumer, None)  # calls that cannot be ended keep theirs for ever
        log.warning("the event loop of the consumers stands still: one of them blocks it", consumer=repr(consumer))
    known = outcomes.copy()  # a loop that goes on after all still writes to the other one
    late = (message.id for message in messages if message.id not in known)
    return known | {message_id: course.fuse.note(_too_slow(BATCH_LIMIT)) for message_id in late}


async def _on_loop(
    consumer: Consumer[Any], messages: Sequence[Message], concurrency: int, course: _Course, outcomes: Outcomes
) -> None:
    free = _places.setdefault(consumer, asyncio.Semaphore(concurrency))

    async def one(message: Message) -> None:
        async with free:
            if wait := course.wait(message):
                await asyncio.sleep(wait)
            if (refusal := course.refusal()) is not None:
                outcomes[message.id] = refusal
                return
            try:
                called = consumer.consume(message)
                assert called is not None
                await _within_limit(called)
            except BaseException as error:  # noqa: BLE001 - SystemExit would end the loop, a cancellation fail the whole batch
                outcomes[message.id] = course.fuse.note(_as_exception(error))
            else:
                outcomes[message.id] = course.fuse.note(None)

    await asyncio.gather(*(one(message) for message in messages))


async def _within_limit(called: Awaitable[T], limit: float | None = None) -> T:
    try:
        async with asyncio.timeout(limit or CALL_LIMIT):
            return await called
    except TimeoutError:
        raise _too_slow(limit) from None


def _in_threads(consumer: Consumer[Any], messages: Sequence[Message], concurrency: int, course: _Course) -> Outcomes:
    def one(message: Message) -> Exception | None:
        if wait := course.wait(message):
            time.sleep(wait)
        if (refusal := course.refusal()) is not None:
            return refusal
        try:
            called = consumer.consume(message)
            if called is not None:  # a `def` that gives what another function's `async def` gave
                run_on_loop(_within_limit(called))
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is the outcome of its message
            return course.fuse.note(_as_exception(error))
        return course.fuse.note(None)

    pool = _threads(consumer, concurrency)
    calls = {message.id: pool.submit(one, message) for message in messages}
    outcomes: Outcomes = {}
    for message_id, call in calls.items():
        try:
            outcomes[message_id] = call.result(max(0.0, course.end + CALL_LIMIT - monotonic()))
        except TimeoutError:
            if call.cancel():
                outcomes[message_id] = _out_of_time()
                continue
            outcomes[message_id] = course.fuse.note(_too_slow())
            _pools.pop(consumer, None)
    return outcomes


def _threads(consumer: AnyConsumer, concurrency: int) -> ThreadPoolExecutor:
    """Give the threads in which a consumer's calls are made. Where one may hang for ever, they are left, and others made."""
    if (pool := _pools.get(consumer)) is not None:
        return pool
    return _pools.setdefault(consumer, ThreadPoolExecutor(concurrency, thread_name_prefix="consumer"))


def _as_exception(error: BaseException) -> Exception:
    """Give an error that can be an outcome: `sys.exit()` inside a plugin is a bug like any other, a cancellation passes."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        return TemporaryError("the consumer's call was cancelled")
    return PermanentError(f"the consumer raised {type(error).__name__}: {error}")


def _too_slow(limit: float | None = None) -> TemporaryError:
    return TemporaryError(f"the consumer took longer than {limit or CALL_LIMIT:.0f} s")


def _out_of_time() -> NotTriedError:
    return NotTriedError(f"its batch took longer than {BATCH_LIMIT:.0f} s before its turn came", counts=False)
