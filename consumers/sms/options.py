"""The options of `sms`."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from pipeline import Config, Template, phone_number

SHORTEST: Final = 16
"""Characters of the query of a `callback` that is the only proof."""


def _known(number: object) -> object:
    """Refuse what is no number before anything starts, where that can be told: a template may give one."""
    text = number.text if isinstance(number, Template) else str(number)
    if "{" not in text:
        for one in split_numbers(text):
            phone_number(one)
    return number


def _of_http(url: SecretStr) -> SecretStr:
    """Take any URL of HTTP, into private networks too: it is the service that posts there (a `SecretUrl` is where we post)."""
    if not url.get_secret_value().startswith(("http://", "https://")):
        raise ValueError("a URL that begins with http:// or https:// is expected")
    return url


def split_numbers(text: str) -> list[str]:
    """Give what stands between commas, semicolons and ends of lines, each to be a telephone number."""
    return [part.strip() for part in re.split(r"[,;\n]", text) if re.sub(r"[\s()./-]", "", part)]


class SmsConfig(Config):
    """The options of `sms`."""

    via: Literal["twilio", "vonage", "clickatell"] = Field(description="The service.")
    account: str = Field(default="", description="Twilio's Account SID, or Vonage's API key.")
    token: SecretStr = Field(min_length=1, description="Twilio's Auth Token, Vonage's API secret, or Clickatell's API key.")
    key_sid: str = Field(default="", description="With Twilio: the SID of an API key (`SK…`), whose secret `token` is then.")
    from_: str = Field(
        default="", alias="from", description="The sender: a number, or a name where the receiver's country allows it."
    )
    to: tuple[Annotated[Template, BeforeValidator(_known)], ...] = Field(description="Who gets it.")
    text: Template | None = Field(default=None, description="What is sent; else the message's title and text.")
    max_parts: int = Field(default=3, ge=1, le=10, description="What is longer than so many parts is cut. Each is paid for.")
    callback: Annotated[SecretStr, AfterValidator(_of_http)] | None = Field(
        default=None,
        description="Where the service posts what becomes of an SMS; for Clickatell as set in its console.",
    )
    auth_token: SecretStr | None = Field(
        default=None, description="With `key_sid`: the account's Auth Token, by which Twilio signs what it posts to `callback`."
    )
    base_url: str | None = Field(
        default=None, pattern="^https?://", description="Another address of the service, such as a region's."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.to:
            raise ValueError("`to` names nobody")
        missing = [name for name, value in (("account", self.account), ("from", self.from_)) if not value]
        if missing and self.via != "clickatell":
            raise ValueError(f"{self.via} needs {' and '.join(missing)}")
        if self.key_sid and self.via != "twilio":
            raise ValueError("key_sid is for twilio")
        if self.auth_token is not None and self.via != "twilio":
            raise ValueError("auth_token is for twilio")
        if self.callback is not None and "/callback/" in urlsplit(self.callback.get_secret_value()).path and not self.provable:
            raise ValueError(
                "callback: with key_sid it needs auth_token, by which Twilio signs"
                if self.via == "twilio"
                else f"callback: its query needs {SHORTEST} random characters, who knows them is believed"
            )
        return self

    @property
    def provable(self) -> bool:
        """Whether it can be told that a call to `callback` is the service's."""
        if self.via == "twilio":
            return self.auth_token is not None or not self.key_sid
        query = parse_qsl(urlsplit(self.callback.get_secret_value()).query) if self.callback is not None else []
        return sum(len(value) for _, value in query) >= SHORTEST

    def url(self, usual: str, path: str) -> str:
        """Give the address of the service's `path`."""
        return f"{(self.base_url or usual).rstrip('/')}{path}"

    def sender(self, plus: str) -> str:
        """Give the sender: a number begins with `plus`, a name is as it is."""
        try:
            return f"{plus}{phone_number(self.from_)[1:]}"
        except ValueError:
            return self.from_
