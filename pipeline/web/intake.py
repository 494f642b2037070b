"""The intake: what is posted to `/in/{pipeline}/{producer}` is on the queue, or in the spool, before it is answered 202."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from pipeline.engine.batch import kept_form
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.written import Written, write
from pipeline.errors import PermanentError, Problem, RequestError, TemporaryError
from pipeline.message import Message, Proven
from pipeline.plugin import Note, WebhookProducer
from pipeline.request import Request, refuse_unstorable
from pipeline.spec.model import ProducerStep
from pipeline.telemetry import REFUSED
from pipeline.web.access import Access
from pipeline.web.answers import ON_ALL, Refusal, error_response, json_response, send_json, unavailable
from pipeline.web.body import read_body
from pipeline.web.services import Services

log = structlog.get_logger()

PREFIX: Final = "/in/"
"""What the paths of all producers begin with: `/in/{pipeline}/{producer}`; what may follow is the producer's to say."""
MOST_MESSAGES: Final = 10_000
"""Messages in one request: half of what may wait for the publisher."""
MOST_BYTES: Final = 256 * 2**20
"""Bytes of all messages of one request: a producer may put what they share into each of them."""
SPOOL_MARGIN: Final = 5.0
"""Seconds beyond the time for the broker, in which the spool may still take the messages."""


class Intake:
    """The ASGI application of everything under `PREFIX`: of all webhook producers."""

    def __init__(self, services: Services, access: Access) -> None:
        self._services = services
        self._access = access
        self._patience = services.settings.publish_timeout.total_seconds() + SPOOL_MARGIN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it where it is refused."""
        name, _, rest = scope["path"].removeprefix(PREFIX).partition("/")
        pipeline = self._services.pipelines.get(name)
        try:
            status, ids = await self._take(scope, receive, pipeline, name, rest)
        except Refusal as refusal:
            if refusal.answer is None:
                response = error_response(refusal.status, str(refusal), refusal.problems, refusal.headers)
            else:
                response = json_response(refusal.status, refusal.answer, refusal.headers)
        except Exception:
            log.exception("the intake failed", pipeline=name)
            response = error_response(500, "something went wrong here; the log says what")
        else:
            await send_json(send, status, msgspec.json.encode({"ids": ids, "count": len(ids)}))
            return
        REFUSED.labels(name if pipeline else "", str(response.status_code)).inc()
        response.raw_headers += ON_ALL
        await response(scope, receive, send)

    async def _take(
        self, scope: Scope, receive: Receive, pipeline: Pipeline | None, name: str, rest: str
    ) -> tuple[int, list[str]]:
        label, slash, below = rest.partition("/")
        if not name or not label:
            raise Refusal(404, f"there is nothing at {scope['path']}")
        step = pipeline.producer(label) if pipeline else None
        producer = _webhook(pipeline, step)
        methods = producer.methods if producer else ("POST",)
        if scope["method"] not in methods:
            allowed = ", ".join(methods)
            raise Refusal(405, f"{scope['method']} is not taken here, only {allowed}", headers={"Allow": allowed})
        headers = _headers(scope)
        if producer is None or not producer.verifies_sender:
            await self._access.require(headers, "intake")
            for key in ("x-api-key", "authorization"):  # they are nobody else's business
                headers.pop(key, None)
        if pipeline is None or step is None:
            raise Refusal(404, _missing(name, label, pipeline))
        if producer is None:
            raise Refusal(
                404, f"producer '{label}' of pipeline '{pipeline.spec.name}' takes no requests: it fetches its messages"
            )
        if (status := producer.status_for(slash + below)) is None:
            raise Refusal(404, f"there is nothing at {scope['path']}")
        query = dict(QueryParams(scope["query_string"])) if scope["query_string"] else {}
        body = await read_body(receive, headers, self._services.settings.max_body)
        request = Request(body=body, headers=headers, query=query, method=scope["method"], path=scope["path"])
        offer, refusal = self._read(producer, request)
        del body, request  # while thousands wait, what they came as would only push others out of the processor's caches
        await self._accept(pipeline, label, offer)
        if refusal is not None:
            raise refusal
        return status, offer.ids

    def _read(self, producer: WebhookProducer[Any], request: Request) -> tuple[_Offer, Refusal | None]:
        """Have the producer make messages, and write them; as objects they are gone when this returns."""
        told, refusal = _receive(producer, request)
        messages = told if isinstance(told, Proven) else [one for one in told if not isinstance(one, Note)]
        written = self._written(messages)
        notes = {one.name: one.text for one in told if isinstance(one, Note)} if len(messages) < len(told) else {}
        return _Offer([message.id for message in messages], written, notes), refusal

    def _written(self, messages: Sequence[Message]) -> list[Written]:
        """Write messages as JSON; refuse what would fail behind the queue, where one could spoil the batch it is in."""
        largest = self._services.publisher.largest
        if (written := write(messages, largest)) is not None:
            return written
        written, problems, size = [], [], 0
        for index, message in enumerate(messages):
            where = f"[{index}]"
            try:
                text = _storable(message)
            except _UnstorableError as error:
                problems.append(Problem(where + error.where, str(error)))
                continue
            if len(text) > largest:
                told = f"{where} makes a message of {len(text)} bytes; the queue takes {largest}"
                raise Refusal(413, told, problems=[Problem(where, f"larger than {largest} bytes")])
            size += len(text)
            if size > MOST_BYTES:
                raise Refusal(413, f"the request makes messages of more than {MOST_BYTES} bytes together")
            written.append(Written(text, 1))
        if problems:
            raise Refusal(422, "the request does not make messages that can be kept", problems=problems)
        return written

    async def _accept(self, pipeline: Pipeline, label: str, offer: _Offer) -> None:
        """Have notes in the store and messages on the queue."""
        if offer.notes:
            await self._note(pipeline, label, offer.notes)
        if offer.written:
            await self._publish(pipeline, label, offer.written)

    async def _note(self, pipeline: Pipeline, label: str, notes: Mapping[str, str]) -> None:
        writing = asyncio.to_thread(self._services.store.write_notes, pipeline.spec.name, label, notes)
        try:
            await asyncio.wait_for(writing, self._patience)
        except TimeoutError:
            raise unavailable(TemporaryError("the store does not answer")) from None
        except TemporaryError as away:
            raise unavailable(away) from None

    async def _publish(self, pipeline: Pipeline, label: str, written: Sequence[Written]) -> None:
        accepted = self._services.publisher.submit(pipeline, label, written)
        patience = accepted.get_loop().call_later(self._patience, _give_up, accepted)
        try:
            await accepted
        except TemporaryError as error:
            raise unavailable(error) from None
        except Exception as error:
            # Nothing was accepted, and the publisher has logged why: the sender is to come again.
            raise unavailable(TemporaryError("the messages could not be queued")) from error
        finally:
            patience.cancel()


def _give_up(accepted: asyncio.Future[None]) -> None:
    if not accepted.done():
        accepted.set_exception(TemporaryError("neither the queue nor the store answers"))


class _Offer(NamedTuple):
    """What a request brings: its messages' ids and JSON, and notes by their names."""

    ids: list[str]
    written: list[Written]
    notes: dict[str, str]


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


def _headers(scope: Scope) -> dict[str, str]:
    """Give each header once; the values of one that was sent several times are joined with commas."""
    headers = scope["headers"]
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    if len(found) == len(headers):
        return found
    found = {}
    for raw, value in headers:
        name, text = raw.decode("latin-1"), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _receive(producer: WebhookProducer[Any], request: Request) -> tuple[Sequence[Message | Note], Refusal | None]:
    """Have the producer make messages, and make an answer of what it raises; both where a part of the request is accepted."""
    refusal = None
    try:
        told = producer.receive(request)
        messages: Sequence[Message | Note] = told if isinstance(told, Proven) else list(islice(told, MOST_MESSAGES + 1))
    except RequestError as error:
        status = error.status if 400 <= error.status < 500 else 422
        refusal = Refusal(status, str(error), problems=error.problems, answer=error.answer)
        messages = list(error.accepted)
    except PermanentError as error:
        raise Refusal(422, str(error)) from None
    except TemporaryError as error:
        raise unavailable(error) from None
    if len(messages) > MOST_MESSAGES:
        raise Refusal(413, f"the request makes more than {MOST_MESSAGES} messages")
    return messages, refusal


def _storable(message: Message) -> bytes:
    """Write a message as JSON; raises `_UnstorableError` for one that could not be read again or stored."""
    try:
        text = kept_form(message)
    except ValueError as error:
        raise _UnstorableError("", f"{type(message).__name__}: {error}") from None
    if not isinstance(message, Message):
        raise _UnstorableError("", "not a message")
    if not isinstance(message.time, datetime):
        raise _UnstorableError(".time", "is no datetime")
    if message.time.tzinfo is None:
        raise _UnstorableError(".time", "has no time zone")
    if b"\\u0000" in text:
        try:
            refuse_unstorable(message.plain())
        except RequestError as error:
            problem = error.problems[0]
            raise _UnstorableError(f".{problem.where}" if problem.where else "", problem.text) from None
    return text
