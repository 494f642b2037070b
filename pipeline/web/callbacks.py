"""What other systems say later of deliveries: posted to `/callback/{pipeline}/{consumer}`, proved by the consumer itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from pipeline.engine.pipeline import Pipeline
from pipeline.engine.results import StepResults
from pipeline.errors import PermanentError, RequestError, TemporaryError
from pipeline.plugin import Consumer, Told
from pipeline.request import Request as Posted
from pipeline.web.answers import ErrorAnswer, Refusal, unavailable
from pipeline.web.body import read_body
from pipeline.web.services import Services

MOST_TOLD: Final = 1000
"""Results in one request."""
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "The body cannot be read.",
        403: "It is not proved who sent it.",
        404: "There is no such consumer, or it expects no calls.",
        413: "The body is too large, or tells of too many deliveries.",
        422: "It can be read, but is not what the consumer expects.",
        503: "The store is away; come again after `Retry-After` seconds.",
    }.items()
}


def add_callbacks(app: FastAPI, services: Services) -> None:
    """Add the route; what is posted there is believed where the consumer finds that its service signed it."""

    @app.post(
        "/callback/{name}/{label}", tags=["intake"], summary="What became of deliveries", status_code=204, responses=_REFUSALS
    )
    async def called_back(name: str, label: str, request: Request) -> Response:
        plugin = await asyncio.to_thread(_consumer, services.pipelines.get(name), name, label)
        headers = {key.lower(): value for key, value in request.headers.items()}
        body = await read_body(request.receive, headers, services.settings.max_body)
        told = _told(plugin, Posted(body=body, headers=headers, query=dict(request.query_params), path=request.url.path))
        results = StepResults(services.store, name, label, lambda: datetime.now(UTC))
        try:
            for one in told:
                await asyncio.to_thread(results.tell, one)
        except TemporaryError as error:
            raise unavailable(error) from None
        return Response(status_code=204)


def _consumer(pipeline: Pipeline | None, name: str, label: str) -> Consumer[Any]:
    for step in pipeline.spec.consumers if pipeline else ():
        expects = issubclass(step.type, Consumer) and step.type.called_back is not Consumer.called_back
        if pipeline and expects and step.label == label:
            plugin = pipeline.plugin(step)
            assert isinstance(plugin, Consumer)
            return plugin
    raise Refusal(404, f"pipeline '{name}' has no consumer '{label}' that expects calls")


def _told(plugin: Consumer[Any], request: Posted) -> list[Told]:
    try:
        told = [*plugin.called_back(request)]
    except RequestError as error:
        raise Refusal(error.status if 400 <= error.status < 500 else 422, str(error), problems=error.problems) from None
    except PermanentError as error:
        raise Refusal(422, str(error)) from None
    if len(told) > MOST_TOLD:
        raise Refusal(413, f"the request tells of more than {MOST_TOLD} deliveries")
    return told
