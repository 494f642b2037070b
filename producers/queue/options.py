"""The options of `queue`, and which of them go with which system."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from datetime import timedelta
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from pipeline import Config, Duration, FieldPaths, QueueUrl

_OF_AMQP: Final = ("queue", "declare", "exchange", "exchange_type", "routing_keys")
_OF_REDIS: Final = ("list", "take_from", "stream", "group", "body_field", "claim_after")
_OF_SQS: Final = ("region", "visibility", "sns_topics", "sns_certificates")
_SYSTEMS: Final = {
    **dict.fromkeys(("amqp", "amqps"), _OF_AMQP),
    **dict.fromkeys(("redis", "rediss"), _OF_REDIS),
    **dict.fromkeys(("sqs", "http", "https"), _OF_SQS),
}


class QueueConfig(Config):
    """The options of `queue`."""

    url: QueueUrl = Field(
        description="The server: amqp://, amqps://, redis://, rediss://, sqs://, or an SQS queue's https:// URL."
    )

    queue: str = Field(default="", max_length=255, description="AMQP: the queue.")
    declare: bool = Field(default=False, description="AMQP: make the queue (durable) where there is none.")
    exchange: str | None = Field(default=None, max_length=255, description="AMQP: the exchange to bind the queue to.")
    exchange_type: Literal["direct", "fanout", "topic", "headers"] | None = Field(
        default=None, description="AMQP: make the exchange (durable), of this type; without it the exchange has to be there."
    )
    routing_keys: tuple[str, ...] = Field(default=(), description="AMQP: what the queue is bound by; without, by the empty key.")

    list: str = Field(default="", description="Redis: the key of a list.")
    take_from: Literal["left", "right"] = Field(default="left", description="Redis: the end of the list that has the oldest.")
    stream: str = Field(default="", description="Redis: the key of a stream.")
    group: str = Field(default="siftbell", min_length=1, description="Redis: the stream's consumer group; it is made.")
    body_field: str = Field(
        default="", description="Redis: the field of a stream's entry that is the body; the others are headers then."
    )
    claim_after: Duration = Field(
        default=timedelta(minutes=1),
        ge=timedelta(seconds=1),
        description="Redis: how long after its listener's last sign of life a message is another one's.",
    )

    region: str | None = Field(
        default=None, pattern="^[a-z0-9-]+$", description="SQS: the region, where the URL does not tell it."
    )
    visibility: Duration = Field(
        default=timedelta(minutes=1),
        ge=timedelta(seconds=4),
        le=timedelta(hours=12),
        description="SQS: how long a message that a killed process held stays hidden; it is extended while one is worked on.",
    )
    sns_topics: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="SQS: ARNs of SNS topics; what is not signed by SNS for one of them is buried."
    )
    sns_certificates: str | None = Field(
        default=None,
        pattern="^https?://",
        description="SQS: for stand-ins of AWS, the address that is asked for SNS's certificates.",
    )

    body: Literal["auto", "json", "text"] = Field(default="auto", description="What the bodies are.")
    fields: FieldPaths = Field(
        default_factory=dict,
        description="Where in the payload a message's fields stand, as paths; the others by their own names.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels of each message, by the name of the header that holds their value."
    )
    source: str = Field(default="queue", min_length=1, description="The source of messages whose payload names none.")
    prefetch: int = Field(default=100, ge=1, le=500, description="How many are taken at once, and may be unacknowledged.")

    @property
    def scheme(self) -> str:
        """What stands before :// in the URL."""
        return urlsplit(self.url.get_secret_value()).scheme

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (own := _SYSTEMS.get(self.scheme)) is None:
            raise ValueError(f"url: {', '.join(f'{scheme}://' for scheme in _SYSTEMS)} is expected")
        given = self.model_fields_set
        if foreign := [name for name in (*_OF_AMQP, *_OF_REDIS, *_OF_SQS) if name in given and name not in own]:
            raise ValueError(f"{foreign[0]}: it does not go with {self.scheme}://, which has {', '.join(own)}")
        for problem in filter(None, (_missing(own), *_problems(self, own))):
            raise ValueError(problem)
        return self


def _missing(own: tuple[str, ...]) -> str:
    """Name what is not installed."""
    if own is _OF_SQS and not all(importlib.util.find_spec(name) for name in ("botocore", "cryptography")):
        return 'url: packages are missing: pip install "siftbell[aws]"'
    return ""


def _problems(config: QueueConfig, own: tuple[str, ...]) -> Iterable[str]:
    if own is _OF_AMQP:
        if not config.queue:
            yield "queue: which one? A queue of your own needs `declare: true` besides"
        if config.exchange is None and (config.exchange_type or config.routing_keys):
            yield "exchange: `exchange_type` and `routing_keys` need one"
        if config.exchange is not None and not config.exchange:
            yield "exchange: nothing can be bound to the nameless one; it leads to each queue by its name"
    elif own is _OF_REDIS:
        if bool(config.list) == bool(config.stream):
            yield "give either `list` or `stream`"
        if config.list and {"group", "body_field"} & config.model_fields_set:
            yield "`group` and `body_field` go with `stream`"
        if config.stream and "take_from" in config.model_fields_set:
            yield "`take_from` goes with `list`"
    elif urlsplit(config.url.get_secret_value()).path.strip("/") == "":
        yield "url: the queue's name is missing, as in sqs:///NAME?region=eu-central-1"
