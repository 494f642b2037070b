"""The options of `telegram`."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, SecretStr

from consumers.telegram.hours import SilentConfig
from pipeline import Config, HtmlTemplate

_DEFAULT: Final = "<b>{{ title }}</b>{% if text %}\n{{ text }}{% endif %}{% if url %}\n{{ url }}{% endif %}"


class TelegramConfig(Config):
    """The options of `telegram`."""

    token: SecretStr = Field(min_length=1, description="The bot's token, as @BotFather gave it.")
    chat_id: int | str = Field(description="The chat's id, negative for groups, or the `@name` of a public channel.")
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
