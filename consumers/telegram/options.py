"""The options of `telegram`."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr

from consumers.telegram.hours import SilentConfig
from pipeline import Config, HtmlTemplate, Message, PermanentError, Template

_DEFAULT: Final = "<b>{{ title }}</b>{% if text %}\n{{ text }}{% endif %}{% if url %}\n{{ url }}{% endif %}"


def _as_text(chat: object) -> object:
    if not isinstance(chat, int | str | Template) or isinstance(chat, bool):
        raise ValueError("a whole number or a text is expected")  # noqa: TRY004 - pydantic's idiom
    return str(chat) if isinstance(chat, int) else chat


class TelegramConfig(Config):
    """The options of `telegram`."""

    token: SecretStr = Field(min_length=1, description="The bot's token, as @BotFather gave it.")
    chat_id: Annotated[Template, BeforeValidator(_as_text, json_schema_input_type=int | Template)] = Field(
        description="The chat's id, negative for groups, or the `@name` of a public channel; or a template that gives it."
    )
    topic: int | None = Field(default=None, gt=0, description="The topic of a forum group: the number in its link.")
    text: HtmlTemplate = Field(default=HtmlTemplate(_DEFAULT), description="What is sent: HTML, values are escaped.")
    follow_up: Literal["reply", "update", "both", "post"] = Field(
        default="reply", description="What a later message of a key does: answer the first, change it, both, or neither."
    )
    long: Literal["parts", "file"] = Field(
        default="parts", description="What becomes of more than 4096 characters: parts, or a file below the text's beginning."
    )
    data: bool = Field(default=False, description="Send the message's `data` along, as a file of JSON.")
    silent: bool | SilentConfig = Field(default=False, description="Deliver without a sound: always, or outside of some hours.")
    previews: bool = Field(default=False, description="Show a preview of the first link.")
    base_url: str = Field(
        default="https://api.telegram.org", pattern="^https?://", description="The Bot API's address, for a server of your own."
    )

    @property
    def one_chat(self) -> int | str | None:
        """The chat of all messages; None where a template names that of each."""
        return _chat(self.chat_id.text) if "{" not in self.chat_id.text else None

    def chat_of(self, message: Message) -> int | str:
        """Give a message's chat. Raises `PermanentError` where it has none."""
        if chat := _chat(self.chat_id.render(message)):
            return chat
        raise PermanentError("`chat_id` names no chat for this message")


def _chat(text: str) -> int | str:
    name = text.strip()
    return int(name) if re.fullmatch(r"-?[0-9]{1,18}", name) else name
