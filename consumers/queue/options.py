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
        if problem := self._problem(of_amqp=own is _OF_AMQP):
            raise ValueError(problem)
        return self

    def _problem(self, *, of_amqp: bool) -> str:
        given = self.model_fields_set
        if of_amqp:
            return "" if self.exchange or self.routing_key.text else "give an `exchange`, or a queue's name as `routing_key`"
        if bool(self.list) == bool(self.stream):
            return "give either `list` or `stream`"
        if self.list and given & {"headers", "body_field"}:
            return "`headers` and `body_field` do not go with `list`"
        if self.stream and "push_to" in given:
            return "`push_to` does not go with `stream`"
        return f"headers: `{self.body_field}` is the field of the body" if self.body_field in self.headers else ""
