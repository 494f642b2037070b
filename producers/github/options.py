"""The options of `github`, and what fits together of them."""

from __future__ import annotations

import difflib
import re
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from pipeline import Config, Duration
from producers.github.writing import EVENTS

Feed = Literal["pull_requests", "issues", "notifications"]


def _event(text: str) -> str:
    name, _, action = text.partition(".")
    if name not in EVENTS:
        near = difflib.get_close_matches(name, EVENTS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"an event such as pull_request or pull_request.opened is expected{meant}")
    if action and not re.fullmatch("[a-z_]+", action):
        raise ValueError("an action such as pull_request.opened is expected")
    return text


def _repository(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text, re.ASCII):
        raise ValueError("OWNER/NAME is expected, such as acme/shop")
    return text


class AppConfig(Config):
    """A GitHub App, in place of a token."""

    id: str = Field(pattern="^[A-Za-z0-9.]+$", coerce_numbers_to_str=True, description="The App ID, or the client ID.")
    private_key: SecretStr = Field(min_length=1, description="Its private key in PEM: `${file:NAME}`.")
    installation: int | None = Field(
        default=None, description="The installation's id; else it is looked up for the owner of each repository."
    )


class GithubConfig(Config):
    """The options of `github`."""

    secret: SecretStr | None = Field(default=None, min_length=1, description="The webhook's secret; checks who posts.")
    events: list[Annotated[str, AfterValidator(_event)]] = Field(
        default_factory=list, description="Only these of what is posted: `pull_request`, `pull_request.opened`."
    )
    repositories: list[Annotated[str, AfterValidator(_repository)]] = Field(
        default_factory=list, description="Only these, posted or polled: `acme/shop`."
    )
    per: Literal["event", "person"] = Field(
        default="event", description="`person`: a pull request is a message for each assignee and reviewer."
    )
    poll: list[Feed] = Field(default=["pull_requests", "issues"], min_length=1, description="What is polled.")
    remind: bool = Field(default=False, description="Each poll tells all that is open or unread, not what has changed.")
    start: Duration = Field(default=timedelta(0), description="How far back the first poll goes; else it tells nothing.")
    token: SecretStr | None = Field(default=None, min_length=1, description="The token that polls.")
    app: AppConfig | None = Field(default=None, description="The app that polls, in place of a token.")
    base_url: str = Field(
        default="https://api.github.com",
        pattern="^https?://[^/?#@]+(/[^?#]*)?$",
        description="The API; of GitHub Enterprise Server `https://HOST/api/v3`.",
    )
    ca_file: Path | None = Field(default=None, description="Certificates of authorities that are trusted as well, as PEM.")
    timeout: Duration = Field(default=timedelta(seconds=30), description="How long an answer may take.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.token is not None and self.app is not None:
            raise ValueError("give `token` or `app`, not both")
        if (self.token or self.app) and not self.repositories and {"pull_requests", "issues"} & {*self.poll}:
            raise ValueError("repositories: name those that are polled, or poll: [notifications] alone")
        if self.app is not None and "notifications" in self.poll:
            raise ValueError("poll: an app has no notifications; they need the `token` of a person")
        if (self.token or self.app) and find_spec("gidgethub") is None:
            raise ValueError('polling needs: pip install "siftbell[github]"')
        return self
