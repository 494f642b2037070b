"""The API: what is configured, what became of messages, and what lies in the dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.security import APIKeyHeader, HTTPBasic, HTTPBearer
from pydantic import BaseModel, Field

from pipeline.errors import Problem
from pipeline.message import Message
from pipeline.plugin import WebhookProducer
from pipeline.spec.model import PipelineSpec, Step
from pipeline.store.rows import DeadLetter
from pipeline.store.selection import Selection
from pipeline.web.access import Access
from pipeline.web.answers import ErrorAnswer, Refusal
from pipeline.web.messages import message_routes
from pipeline.web.services import Services

_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": ErrorAnswer, "description": "No API key, or one that is not known."},
    403: {"model": ErrorAnswer, "description": "The key has expired or lacks the scope `api`."},
    422: {"model": ErrorAnswer, "description": "A parameter is not what is expected."},
    503: {"model": ErrorAnswer, "description": "The store is away; come again after `Retry-After` seconds."},
}
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ErrorAnswer, "description": "There is none."}}


class StepModel(BaseModel):
    """One line of a pipeline."""

    kind: str = Field(description="producer, filter or consumer")
    label: str
    plugin: str
    active: bool
    url: str | None = Field(None, description="Where messages are posted to: set for producers that take requests.")


class PipelineModel(BaseModel):
    """A pipeline as it is configured; options are left out, they may be secret."""

    name: str
    description: str
    revision: str = Field(description="Changes when the pipeline's meaning may have changed.")
    steps: list[StepModel] = Field(description="Producers, then filters in their order, then consumers.")


class DeadLetterModel(BaseModel):
    """A message that was given up at a step."""

    message_id: str
    pipeline: str
    step: str
    error: str
    attempts: int
    at: datetime
    title: str
    place: str = Field(description="Where it stands in the list: what `before` takes.")


class FullDeadLetterModel(DeadLetterModel):
    """The same with everything that is known."""

    traceback: str
    message: dict[str, Any]


class DeadLettersModel(BaseModel):
    """Dead letters, the newest first."""

    dead_letters: list[DeadLetterModel]
    next: str | None = Field(description="The next page's path and query, where there may be one.")


def api_routes(services: Services, access: Access) -> APIRouter:
    """Give the routes under /api/v1; each needs a key with the scope `api`."""
    routes = APIRouter(prefix="/api/v1", tags=["api"], dependencies=_guard(access), responses=_REFUSALS)
    store = services.store
    routes.include_router(message_routes(services))

    @routes.get("/pipelines", summary="The pipelines and their steps")
    def pipelines() -> list[PipelineModel]:
        return [_pipeline(pipeline.spec) for pipeline in services.pipelines]

    @routes.get("/dead-letters", summary="Messages that were given up, the newest first")
    def dead_letters(
        request: Request,
        pipeline: Annotated[str | None, Query(description="Only this pipeline's.")] = None,
        step: Annotated[str | None, Query(description="Only those given up at this step.")] = None,
        before: Annotated[str | None, Query(description="The `place` of the last one of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> DeadLettersModel:
        try:
            found = store.dead_letters(Selection(pipeline=pipeline, step=step), before=before, limit=limit)
        except ValueError as error:
            raise Refusal(422, str(error), problems=[Problem("before", str(error))]) from None
        following = None
        if len(found) == limit:
            following = f"{request.scope['path']}?{urlencode({**request.query_params, 'before': found[-1].place})}"
        return DeadLettersModel(dead_letters=[DeadLetterModel(**_dead(letter)) for letter in found], next=following)

    @routes.get("/dead-letters/{message_id}", summary="A message that was given up, once per step", responses=_NOT_FOUND)
    def dead_letter(message_id: Annotated[str, Path(max_length=64)]) -> list[FullDeadLetterModel]:
        found = store.dead_letter(message_id)
        if not found:
            raise Refusal(404, f"message '{message_id}' is not among the dead letters")
        return [
            FullDeadLetterModel(**_dead(letter), traceback=letter.traceback, message=_plain(letter.message)) for letter in found
        ]

    return routes


def _guard(access: Access) -> list[Any]:
    """Give the dependencies that ask for a key, each way of sending it described in the OpenAPI document."""

    async def require(request: Request) -> None:
        await access.require(request.headers, "api")

    guard: Callable[[Request], Awaitable[None]] = require
    return [
        Depends(HTTPBearer(auto_error=False, scheme_name="bearer")),
        Depends(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header")),
        Depends(HTTPBasic(auto_error=False, scheme_name="basic", description="The key is the password.")),
        Depends(guard),
    ]


def _pipeline(spec: PipelineSpec) -> PipelineModel:
    steps: list[Step] = [*spec.producers, *spec.filters, *spec.consumers]
    return PipelineModel(
        name=spec.name,
        description=spec.description,
        revision=spec.revision,
        steps=[
            StepModel(
                kind=step.kind,
                label=step.label,
                plugin=step.plugin,
                active=step.active,
                url=f"/in/{spec.name}/{step.label}" if issubclass(step.type, WebhookProducer) else None,
            )
            for step in steps
        ],
    )


def _dead(letter: DeadLetter) -> dict[str, Any]:
    return {
        "message_id": letter.message.id,
        "pipeline": letter.pipeline,
        "step": letter.step,
        "error": letter.error,
        "attempts": letter.attempts,
        "at": letter.at,
        "title": letter.message.title,
        "place": letter.place,
    }


def _plain(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(message)
    return plain
