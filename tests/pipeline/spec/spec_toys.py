"""Toy plugins for the tests of specs: one of each kind, used as `toys:Class` or as files in `plugins/`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import AnyUrl, Field, SecretStr, model_validator

from pipeline import (
    BatchConsumer,
    Condition,
    Config,
    Consumer,
    Duration,
    Filter,
    ListeningProducer,
    Memory,
    Message,
    NoOptions,
    Opened,
    PollingProducer,
    Publish,
    RememberingFilter,
    Request,
    WebhookProducer,
    Window,
    WindowFilter,
)


class Hook(WebhookProducer[NoOptions]):
    def receive(self, request: Request) -> Iterable[Message]:
        return [Message(source="hook")]


class PollOptions(Config):
    url: str = Field(default="http://localhost", description="Where.")


class Poll(PollingProducer[PollOptions]):
    def poll(self, cursor: str | None) -> Iterable[tuple[Message, str]]:
        return []


class Listen(ListeningProducer[NoOptions]):
    def listen(self, publish: Publish, stopping: Any) -> None:
        pass


class OnlyOptions(Config):
    shorthand: ClassVar[str | None] = "condition"

    condition: Condition = Field(description="What passes.")


class Only(Filter[OnlyOptions]):
    def filter(self, message: Message) -> Iterable[Message]:
        return [message] if self.config.condition.matches(message) else []


class WithinOptions(Config):
    by: list[str] = Field(default=["key"], description="Which fields.")
    within: Duration = Field(description="How long.")


class Once(RememberingFilter[WithinOptions]):
    def filter(self, message: Message, memory: Memory) -> Iterable[Message]:
        return [message]


class Wait(WindowFilter[WithinOptions]):
    def window(self, message: Message, now: datetime, memory: Memory) -> Window | None:
        return None

    def release(self, opened: Opened) -> Iterable[Message]:
        return opened.messages


class Rule(Config):
    field: str
    level: Literal["low", "high"] = "low"


class ChatOptions(Config):
    token: SecretStr = Field(description="The token.")
    chat_id: int | str = Field(description="The chat.")
    size: int = Field(default=10, ge=1, le=100, description="How large.")
    code: str = Field(default="a", pattern="^[a-z]+$", description="A code.")
    link: AnyUrl | None = Field(default=None, description="A link.")
    rules: list[Rule] = Field(default=[], description="Rules.")
    headers: dict[str, SecretStr] = Field(default={}, description="Headers.")

    @model_validator(mode="after")
    def _consistent(self) -> "ChatOptions":
        if self.chat_id == "nobody":
            raise ValueError(f"nobody listens to {self.token.get_secret_value()}")
        return self


class ChatRoom(Consumer[ChatOptions]):
    def consume(self, message: Message) -> None:
        pass


class Batch(BatchConsumer[NoOptions]):
    def consume_many(self, messages: Sequence[Message]) -> Mapping[str, Any]:
        return {}


class Unfinished(Consumer[NoOptions]):
    pass
