"""The options of `queue`, and which of them go with which system."""

from __future__ import annotations

from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from pipeline import Config, QueueUrl, Template

_OF_AMQP: Final = ("exchange", "routing_key")
_OF_REDIS: Final = ("list", "push_to", "stream", "body_field", "maxlen")
_SYSTEMS: Final = {**dict.fromkeys(("amqp", "amqps"), _OF_AMQP), **dict.fromkeys(("redis", "rediss"), _OF_REDIS)}


class QueueConfig(Config):
    """The options of `queue`."""

    url: QueueUrl = Field(description="The server: amqp://, amqps://, redis:// or rediss://.")

    exchange: str = Field(
        default="", max_length=255, description="AMQP: the exchange; without a name, `routing_key` is the queue's name."
    )
    routing_key: Template = Field(default=Template(""), description="AMQP: the routing key.")

    list: str = Field(default="", description="Redis: the key of a list.")
    push_to: Literal["left", "right"] = Field(default="right", description="Redis: the end of the list that gets the newest.")
    stream: str = Field(default="", description="Redis: the key of a stream.")
    body_field: str = Field(default="body", min_length=1, description="Redis: the field of a stream's entry that holds the body.")
    maxlen: int | None = Field(
        default=None,
        ge=1,
        description="Redis: how long the list, or about how long the stream, may become; the oldest are dropped.",
    )

    body: Template | None = Field(default=None, description="The body; without it the message as JSON.")
    content_type: str = Field(
        default="application/json", min_length=1, max_length=255, description="The content type of the body."
    )
    headers: dict[str, Template] = Field(
        default_factory=dict, description="Headers beside the body, or other fields of a stream's entry, by their names."
    )

    @property
    def of_amqp(self) -> bool:
        """Whether the server speaks AMQP."""
        return urlsplit(self.url.get_secret_value()).scheme in ("amqp", "amqps")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        scheme = urlsplit(self.url.get_secret_value()).scheme
        if (own := _SYSTEMS.get(scheme)) is None:
            raise ValueError(
                f"url: {', '.join(f'{one}://' for one in _SYSTEMS)} is expected; for SQS there is the consumer `sqs`"
            )
        if foreign := [name for name in (*_OF_AMQP, *_OF_REDIS) if name in self.model_fields_set and name not in own]:
            raise ValueError(f"{foreign[0]}: it does not go with {scheme}://, which has {', '.join(own)}")
        if own is _OF_AMQP:
            if not self.exchange and not self.routing_key.text:
                raise ValueError("give an `exchange`, or a queue's name as `routing_key`")
        elif bool(self.list) == bool(self.stream):
            raise ValueError("give either `list` or `stream`")
        elif self.list and (self.headers or "body_field" in self.model_fields_set):
            raise ValueError("`headers` and `body_field` do not go with `list`")
        elif self.stream and ("push_to" in self.model_fields_set or self.body_field in self.headers):
            raise ValueError(f"{'headers' if self.headers else 'push_to'}: it does not go with `stream`, or names `body_field`")
        return self
