"""The API's answers about messages: what became of one, and how many are where."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from pipeline.engine.explain import explain
from pipeline.engine.explanation import State
from pipeline.web.answers import ErrorAnswer, Refusal
from pipeline.web.services import Services

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ErrorAnswer, "description": "Nothing is known of it."}}


class CountModel(BaseModel):
    """How many messages a step decided on in the same way; for `held`: how many wait for it now."""

    pipeline: str
    step: str
    outcome: str
    count: int


class HeldModel(BaseModel):
    """How many messages wait in the store for a step; an empty step stands for the pipeline's first."""

    pipeline: str
    step: str
    why: str = Field(description="spool, filter, window or retry")
    count: int


class DeadModel(BaseModel):
    """How many messages a step gave up."""

    pipeline: str
    step: str
    count: int


class StatsModel(BaseModel):
    """Where the messages are."""

    since: datetime | None = Field(
        description="The hour since which decisions are counted: about as far back as records are kept."
    )
    decided: list[CountModel]
    held: list[HeldModel]
    dead: list[DeadModel]


class FromValue(BaseModel):
    """A model that is read from a value of the engine."""

    model_config = ConfigDict(from_attributes=True)


class RecordModel(FromValue):
    """What was decided about a message at a step, last."""

    message_id: str
    pipeline: str
    step: str
    outcome: str
    at: datetime
    attempt: int
    since: datetime | None = Field(description="When the first of several attempts failed.")
    reason: str
    became: list[str] = Field(description="The messages that went on in its place, the first hundred.")


class ResultModel(FromValue):
    """What the other side said later of a delivery."""

    reference: str = Field(description="What it calls the delivery.")
    note: str = Field(description="What the consumer said of it.")
    arrived: bool | None = Field(description="Null while that is open.")
    text: str = Field(description="What the other side said of it since.")
    at: datetime


class EntryModel(FromValue):
    """How things stand with a message at one step."""

    pipeline: str
    step: str
    kind: str = Field(description="filter, consumer, intake; gone: the configuration has no such step any more")
    plugin: str
    place: str = Field(description="File, line and column of the step, as the configuration is now.")
    state: State
    at: datetime | None
    attempts: int = Field(description="How often it was tried.")
    since: datetime | None = Field(description="When the first of several attempts failed.")
    due: datetime | None = Field(description="When it is tried again, or goes on; with `open_since`: when the service is tried.")
    open_since: datetime | None = Field(description="Since when its consumer's circuit is open, where it waits for that.")
    reason: str
    hint: str = Field(description="A command that helps.")
    became: list[str] = Field(description="The messages that went on in its place, the first hundred.")
    results: list[ResultModel] = Field(description="What the other side said later of its deliveries.")


class MessageModel(FromValue):
    """What became of a message."""

    id: str
    answer: str = Field(description="All of it in a sentence.")
    accepted: datetime | None = Field(description="The time in the message's id; null where it is not a UUIDv7.")
    title: str = Field(description="Known, as the source is, while the message is held or among the dead letters.")
    source: str
    entries: list[EntryModel] = Field(description="Step by step in the order of time; what is still to come stands last.")
    origins: list[RecordModel] = Field(description="The decisions by which it came in place of other messages.")
    became: list[MessageModel] = Field(description="What became of the messages that went on in its place, of the first of them.")
    records: list[RecordModel] = Field(description="What the store has of it, in the order of time.")


def message_routes(services: Services) -> APIRouter:
    """Give the routes; they bear no prefix and no guard of their own."""
    routes = APIRouter()
    store = services.store

    @routes.get("/stats", summary="How many messages are where")
    def stats() -> StatsModel:
        decided = sorted(store.counts().items())
        held = sorted(store.held_counts().items())
        dead = sorted(store.count_dead().items())
        return StatsModel(
            since=store.counted_since(),
            decided=[CountModel(pipeline=p, step=s, outcome=outcome, count=n) for (p, s, outcome), n in decided],
            held=[HeldModel(pipeline=p, step=s, why=why, count=n) for (p, s, why), n in held],
            dead=[DeadModel(pipeline=p, step=s, count=n) for (p, s), n in dead],
        )

    @routes.get("/messages/{message_id}", summary="What became of a message", responses=_NOT_FOUND)
    def message(message_id: Annotated[str, Path(max_length=64)]) -> MessageModel:
        specs = [pipeline.spec for pipeline in services.pipelines]
        found = explain(store, specs, message_id, datetime.now(UTC))
        if found is None:
            raise Refusal(404, f"nothing is recorded about message '{message_id}': it is not known here, waits, or was long ago")
        return MessageModel.model_validate(found)

    return routes
