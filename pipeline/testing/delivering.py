"""A consumer's call as a worker makes it, and what arrives of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.errors import PermanentError, TemporaryError
from pipeline.http import HttpRequest
from pipeline.message import Message
from pipeline.plugin import BatchConsumer
from pipeline.testing.server import Received

T = TypeVar("T")


def assert_arrived(received: Received, request: HttpRequest) -> None:
    """Fail where something else arrived than the request says."""
    parts = urlsplit(request.url)
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    assert (received.method, received.body) == (request.method, request.body)
    assert unquote(received.path) == unquote(target)
    wanted = {name.lower(): value for name, value in request.headers.items()}
    assert {name: received.headers.get(name, "").encode("latin-1").decode() for name in wanted} == wanted


def deliver(plugin: Any, message: Message) -> None:
    """Give one message to a consumer of any kind, on a loop of its own, and close what belongs to that."""
    if isinstance(plugin, BatchConsumer) and plugin.takes_batches(plugin.config):
        for error in deliver_many(plugin, [message]).values():
            raise error
        return
    awaited = plugin.consume(message)
    if inspect.iscoroutine(awaited):
        run(plugin, awaited)


def deliver_many(plugin: Any, messages: Sequence[Message]) -> Any:
    """Give messages to a consumer of batches, and give the errors by id; an `async def` runs on a loop of its own."""
    told = plugin.consume_many(messages)
    return run(plugin, told) if inspect.iscoroutine(told) else told


def failure(plugin: Any, message: Message) -> TemporaryError | PermanentError | None:
    """Give the error that a delivery ends with, if it does."""
    try:
        deliver(plugin, message)
    except (TemporaryError, PermanentError) as error:
        return error
    return None


def run(plugin: Any, work: Coroutine[Any, Any, T]) -> T:
    """Run work of a plugin on a loop of its own, and close the plugin's connections there."""

    async def and_close() -> T:
        try:
            return await work
        finally:
            await plugin.aclose()

    return asyncio.run(and_close())


def request_of(plugin: Any, message: Message) -> HttpRequest | str:
    """Give the request for a message, or why there is none."""
    try:
        request: HttpRequest = plugin.request(message)
    except PermanentError as error:
        return str(error)
    return request


def shown_by(plugin: Any, message: Message) -> object:
    """Give a preview of a message, or why there is none."""
    try:
        shown: object = plugin.preview(message)
    except PermanentError as error:
        return str(error)
    return shown
