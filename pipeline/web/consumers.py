"""The API's part about consumers: whether they work, and a way to have one called again at once."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, Field

from pipeline.engine.consumers import ConsumerStatus, close_circuit, statuses
from pipeline.engine.pipeline import UnknownStepError
from pipeline.web.answers import ErrorAnswer, Refusal
from pipeline.web.services import Services

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ErrorAnswer, "description": "There is none."}}


class ConsumerModel(BaseModel):
    """A consumer, its circuit, and what waits for it."""

    pipeline: str
    consumer: str
    plugin: str
    when: str | None = Field(description="The condition for the messages that it gets.")
    circuit: str = Field(description="closed: it is called; open: it failed again and again; half-open: one message tries it.")
    since: datetime | None = Field(description="When the circuit was opened.")
    failures: int = Field(description="Temporary errors since the last success.")
    error: str | None = Field(description="The last of them.")
    next_try: datetime | None = Field(description="When a message tries an open circuit's service.")
    held: int = Field(description="Messages that wait for this consumer.")
    rate: str | None


def consumer_routes(services: Services) -> APIRouter:
    """Give the routes under /consumers."""
    routes = APIRouter(prefix="/consumers")

    def found() -> list[ConsumerStatus]:
        return statuses((pipeline.spec for pipeline in services.pipelines), services.store)

    @routes.get("", summary="The consumers, their circuits, and what waits for them")
    def consumers() -> list[ConsumerModel]:
        return [ConsumerModel(**asdict(status)) for status in found()]

    @routes.post("/{pipeline}/{label}/close", summary="Close a consumer's circuit at once", responses=_NOT_FOUND)
    def close(pipeline: str, label: str) -> ConsumerModel:
        try:
            services.pipelines[pipeline].consumer(label)
        except UnknownStepError as error:
            raise Refusal(404, str(error)) from None
        close_circuit(services.store, pipeline, label)
        (status,) = (one for one in found() if (one.pipeline, one.consumer) == (pipeline, label))
        return ConsumerModel(**asdict(status))

    return routes
