"""The intake: what is posted to `/in/{pipeline}/{producer}` is on the queue, or in the spool, before it is answered 202."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any, Final

import msgspec
import structlog
from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.engine.batch import kept_form
from pipeline.engine.pipeline import Pipeline
from pipeline.errors import PermanentError, Problem, RequestError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import WebhookProducer
from pipeline.request import Request, refuse_unstorable
from pipeline.spec.model import ProducerStep
from pipeline.telemetry import REFUSED
from pipeline.web.access import Access
from pipeline.web.answers import Refusal, error_response, json_response, unavailable
from pipeline.web.body import read_body
from pipeline.web.services import Services

log = structlog.get_logger()

MOST_MESSAGES: Final = 10_000
"""Messages in one request: half of what may wait for the publisher."""
SPOOL_MARGIN: Final = 5.0
"""Seconds beyond the time for the broker, in which the spool may still take the messages."""


class Intake:
    """The ASGI endpoint of all webhook producers."""

    def __init__(self, services: Services, access: Access) -> None:
        self._services = services
        self._access = access
        self._patience = services.settings.publish_timeout.total_seconds() + SPOOL_MARGIN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it where it is refused."""
        request = HttpRequest(scope, receive)
        pipeline = self._services.pipelines.get(request.path_params["pipeline"])
        name = pipeline.spec.name if pipeline else ""
        try:
            response = await self._take(request, pipeline)
        except Refusal as refusal:
            response = error_response(refusal.status, str(refusal), refusal.problems, refusal.headers)
        except Exception:
            log.exception("the intake failed", pipeline=name)
            response = error_response(500, "something went wrong here; the log says what")
        if response.status_code >= 400:
            REFUSED.labels(name, str(response.status_code)).inc()
        await response(scope, receive, send)

    async def _take(self, request: HttpRequest, pipeline: Pipeline | None) -> Response:
        if request.method != "POST":
            raise Refusal(405, "messages are posted here", headers={"Allow": "POST"})
        label = request.path_params["producer"]
        step = pipeline.producer(label) if pipeline else None
        producer = _webhook(pipeline, step)
        if producer is None or not producer.verifies_sender:
            await self._access.require(request.headers, "intake")
        if pipeline is None or step is None:
            raise Refusal(404, _missing(request.path_params["pipeline"], label, pipeline))
        if producer is None:
            raise Refusal(
                404, f"producer '{label}' of pipeline '{pipeline.spec.name}' takes no requests: it fetches its messages"
            )
        body = await read_body(request, self._services.settings.max_body)
        messages = _receive(producer, _as_request(request, body, verified_here=not producer.verifies_sender))
        self._check(messages)
        if messages:
            await self._publish(pipeline, label, messages)
        ids = [message.id for message in messages]
        return json_response(202, {"ids": ids, "count": len(ids)})

    def _check(self, messages: Sequence[Message]) -> None:
        """Refuse what would fail behind the queue, where one message could spoil the batch it shares with others."""
        problems = []
        for index, message in enumerate(messages):
            where = f"[{index}]"
            try:
                size = _storable_size(message)
            except _UnstorableError as error:
                problems.append(Problem(where + error.where, str(error)))
                continue
            largest = self._services.publisher.largest
            if size > largest:
                text = f"{where} makes a message of {size} bytes; the queue takes {largest}"
                raise Refusal(413, text, problems=[Problem(where, f"larger than {largest} bytes")])
        if problems:
            raise Refusal(422, "the request does not make messages that can be kept", problems=problems)

    async def _publish(self, pipeline: Pipeline, label: str, messages: Sequence[Message]) -> None:
        accepted: Future[None] = self._services.publisher.submit(pipeline, label, messages)
        try:
            # Shielded: a request that is given up must not cancel a future that the publisher is about to settle.
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(accepted)), self._patience)
        except TemporaryError as error:
            raise unavailable(error) from None
        except TimeoutError:
            raise unavailable(TemporaryError("neither the queue nor the store answers")) from None
        except Exception as error:
            # Nothing was accepted, and the publisher has logged why: the sender is to come again.
            raise unavailable(TemporaryError("the messages could not be queued")) from error


class _UnstorableError(Exception):
    def __init__(self, where: str, text: str) -> None:
        super().__init__(text)
        self.where = where


def _webhook(pipeline: Pipeline | None, step: ProducerStep | None) -> WebhookProducer[Any] | None:
    if pipeline is None or step is None or not issubclass(step.type, WebhookProducer):
        return None
    plugin = pipeline.plugin(step)
    assert isinstance(plugin, WebhookProducer)
    return plugin


def _missing(name: str, label: str, pipeline: Pipeline | None) -> str:
    if pipeline is None:
        return f"there is no pipeline '{name}'"
    return f"pipeline '{name}' has no producer '{label}'"


def _as_request(request: HttpRequest, body: bytes, *, verified_here: bool) -> Request:
    """Give the request as the producer sees it; without the API key, where that was checked here."""
    headers = _joined(request.headers)
    if verified_here:
        headers = {name: value for name, value in headers.items() if name not in {"x-api-key", "authorization"}}
    return Request(
        body=body,
        headers=headers,
        query=dict(request.query_params),
        method=request.method,
        path=request.scope["path"],
    )


def _joined(headers: Headers) -> dict[str, str]:
    """Give each header once; the values of one that was sent several times are joined with commas."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _receive(producer: WebhookProducer[Any], request: Request) -> list[Message]:
    """Have the producer make messages, and make an answer of what it raises."""
    try:
        messages = list(islice(producer.receive(request), MOST_MESSAGES + 1))
    except RequestError as error:
        status = error.status if 400 <= error.status < 500 else 422
        raise Refusal(status, str(error), problems=error.problems) from None
    except PermanentError as error:
        raise Refusal(422, str(error)) from None
    except TemporaryError as error:
        raise unavailable(error) from None
    if len(messages) > MOST_MESSAGES:
        raise Refusal(413, f"the request makes more than {MOST_MESSAGES} messages")
    return messages


def _storable_size(message: Message) -> int:
    """Give the size of a message as JSON; raises `_UnstorableError` for one that could not be read again or stored."""
    try:
        text = kept_form(message)
    except ValueError as error:
        raise _UnstorableError("", f"{type(message).__name__}: {error}") from None
    if not isinstance(message, Message):
        raise _UnstorableError("", "not a message")
    if message.time.tzinfo is None:
        raise _UnstorableError(".time", "has no time zone")
    if b"\\u0000" in text:
        try:
            refuse_unstorable(msgspec.to_builtins(message))
        except RequestError as error:
            problem = error.problems[0]
            raise _UnstorableError(f".{problem.where}" if problem.where else "", problem.text) from None
    return len(text)
