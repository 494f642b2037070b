"""The API: what is configured, what became of messages, and what lies in the dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.security import APIKeyHeader, HTTPBasic, HTTPBearer
from pydantic import BaseModel, Field

from pipeline.plugin import WebhookProducer
from pipeline.spec.model import PipelineSpec, Step
from pipeline.web.access import Access
from pipeline.web.answers import ErrorAnswer
from pipeline.web.consumers import consumer_routes
from pipeline.web.letters import letter_routes
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


def api_routes(services: Services, access: Access) -> APIRouter:
    """Give the routes under /api/v1; each needs a key with the scope `api`."""
    routes = APIRouter(prefix="/api/v1", tags=["api"], dependencies=_guard(access), responses=_REFUSALS)
    routes.include_router(message_routes(services))
    routes.include_router(letter_routes(services))
    routes.include_router(consumer_routes(services))

    @routes.get("/pipelines", summary="The pipelines and their steps")
    def pipelines() -> list[PipelineModel]:
        return [_pipeline(pipeline.spec) for pipeline in services.pipelines]

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
                url=f"/in/{spec.name}/{step.label}{step.type.below}" if issubclass(step.type, WebhookProducer) else None,
            )
            for step in steps
        ],
    )
