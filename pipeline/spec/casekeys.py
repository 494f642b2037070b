"""The keys that may stand in a `NAME.test.yaml`, with what they mean: for the reader, for its errors, and for the JSON Schema."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.schedule import read_zone
from pipeline.spec.cases import Failure
from pipeline.units import Duration


def _zone(name: str) -> str:
    read_zone(name)
    return name


def _positive(length: timedelta) -> timedelta:
    if not length:
        raise ValueError("a duration above zero is expected")
    return length


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnswerKeys(_Keys):
    """What the sender of a payload is answered."""

    status: int = Field(ge=100, le=599, description="The status code.")
    reason: str | dict[str, str] | None = Field(default=None, description="The text; or {contains: …}, {matches: …}.")


class MessageKeys(_Keys):
    """The fields of a message."""

    id: str | None = Field(default=None, description="A UUID; else a new one.")
    source: str | None = Field(default=None, description="Where it came from; else the producer's label.")
    type: str | None = Field(default=None, description="What kind of fact it is; else event.")
    time: str | None = Field(default=None, description="When it was; else the moment at which it is sent.")
    title: str | None = Field(default=None, description="The title.")
    text: str | None = Field(default=None, description="The text.")
    severity: str | None = Field(default=None, description="debug, info, warning, error, critical, or the sender's own word.")
    status: Literal["firing", "resolved"] | None = Field(default=None, description="firing or resolved; else firing.")
    labels: dict[str, str] | None = Field(default=None, description="Its labels.")
    key: str | None = Field(default=None, description="What it is about.")
    url: str | None = Field(default=None, description="A link.")
    data: Any = Field(default=None, description="The payload.")


class PayloadKeys(_Keys):
    """What a producer is given: a payload that is posted to it, or a message that is its own."""

    file: str | None = Field(default=None, description="A file with the payload; beside the tests, or below.")
    json_: Any = Field(default=None, alias="json", description="The payload as JSON.")
    text: str | None = Field(default=None, description="The payload as a text.")
    form: dict[str, str] | None = Field(default=None, description="The payload as a form.")
    message: MessageKeys | None = Field(default=None, description="A message, as the producer would make it.")
    messages: list[MessageKeys] | None = Field(default=None, description="Several of them.")
    headers: dict[str, str] = Field(default={}, description="Headers of the request.")
    query: dict[str, str] = Field(default={}, description="The request's query.")
    path: str = Field(default="", description="What follows /in/PIPELINE/PRODUCER in the request's path, such as /api/v2/alerts.")
    content_type: str | None = Field(
        default=None, description="The media type; else application/json, text/plain or that of a form."
    )
    method: Literal["POST", "PUT", "GET", "HEAD"] = Field(default="POST", description="The request's method.")


class StepKeys(_Keys):
    """What stands beside a producer's label in a step, or in its place."""

    after: Duration | None = Field(default=None, description="So long after the step before it.")
    at: str | None = Field(default=None, description="When: a time, or +10m for so long after the test began.")
    repeat: int | None = Field(default=None, ge=1, le=100_000, description="How often; {{ n }} in the payload counts from 1.")
    every: Annotated[Duration, AfterValidator(_positive)] | None = Field(
        default=None, description="The time between repetitions."
    )
    answer: int | AnswerKeys | None = Field(default=None, description="What the sender is answered where that is no success.")
    wait: Duration | None = Field(default=None, description="Time passes.")
    restart: Literal[True] | None = Field(default=None, description="All processes end, and start anew.")
    forget: Literal[True] | None = Field(default=None, description="The memory is lost, as when a Redis is flushed.")


class FailKeys(_Keys):
    """How a consumer fails."""

    how: Failure = Field(
        default="temporary",
        alias="with",
        description="temporary: tried again; permanent: refused; crash: a bug in the consumer.",
    )
    lasting: Duration | None = Field(default=None, alias="for", description="For how long; else until the test ends.")
    after: Duration | None = Field(default=None, description="From when on, since the test began; else from the beginning.")


class SpanKeys(_Keys):
    """Between which times something is expected."""

    earliest: str | None = Field(default=None, alias="from", description="Not before this: a time, or +10m.")
    latest: str | None = Field(default=None, alias="to", description="Not after this: a time, or +10m.")


class CaseKeys(_Keys):
    """A test."""

    name: str = Field(min_length=1, description="What is tested.")
    at: str | None = Field(default=None, description="When it begins, such as 2026-03-29T01:59; else on a Monday at noon.")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(default="UTC", description="The zone of times that name none.")
    environment: dict[str, str] = Field(default={}, description="The variables that the pipeline reads.")
    send: list[Any] = Field(default=[], description="What is sent, one step after the other.")
    fail: dict[str, Any] = Field(default={}, description="Which consumers fail, and how.")
    expect: dict[str, Any] | None = Field(
        default=None, description="By consumer: the deliveries in their order, each with some of its fields; or how many."
    )
    only: bool = Field(default=False, description="The consumers that are not named get nothing.")
    dropped: dict[str, Any] = Field(default={}, description="By step: what it drops, or how many.")
    dead_letters: dict[str, Any] = Field(default={}, description="By step: what is given up there, or how much.")
    held: int | None = Field(default=None, ge=0, description="How many messages still wait at the end.")
    until: Duration | None = Field(
        default=None, description="How long it goes on after the last step; else until nothing waits, for 31 days at most."
    )


class FileKeys(_Keys):
    """A file of tests."""

    environment: dict[str, str] = Field(default={}, description="The variables that the pipeline reads, in all tests.")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(default="UTC", description="The zone of times that name none.")
    tests: list[Any] = Field(min_length=1, description="The tests.")
