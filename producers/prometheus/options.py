"""The options of `prometheus`: all of them are about asking a server; what is posted needs none."""

from __future__ import annotations

import ssl
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from pipeline import Config, ConfigError, Duration, Template


def _address(url: str) -> str:
    """Take a server's address, without what belongs into options of its own; never repeats it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("this is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL that begins with http:// or https:// is expected")
    if "@" in parts.netloc:
        raise ValueError("a user and a password stand in options of these names, not in the URL")
    if parts.query or parts.fragment:
        raise ValueError("only the server's address is expected, without what follows a ? or #")
    return url.rstrip("/").removesuffix("/api/v1").rstrip("/")


class PrometheusConfig(Config):
    """The options of `prometheus`."""

    url: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None, description="A Prometheus server to ask on a `schedule:`, such as `http://prometheus:9090`."
    )
    query: str | None = Field(
        default=None, min_length=1, description="What to ask, in PromQL: a message per series. Without it: the alerts that fire."
    )
    repeat: bool = Field(
        default=False, description="With `query`: a message per series at each poll, not only when one comes or is gone."
    )
    title: Template | None = Field(default=None, description="With `query`: the title; `labels.NAME`, `data.value`.")
    text: Template | None = Field(default=None, description="With `query`: the text.")
    severity: Template | None = Field(default=None, description="With `query`: the severity, in any of many words.")
    labels: dict[str, Template] = Field(default_factory=dict, description="With `query`: labels to add, by name.")
    resolve_after: Duration = Field(
        default=timedelta(0), description="For how long an alert or a series has to be gone before a message says so."
    )
    user: str | None = Field(default=None, description="The user, where the server asks for one.")
    password: SecretStr | None = Field(default=None, description="The user's password.")
    token: SecretStr | None = Field(default=None, min_length=1, description="A bearer token, in place of user and password.")
    ca_file: Path | None = Field(default=None, description="The authority that vouches for the server; else the system's.")
    cert_file: Path | None = Field(default=None, description="A certificate to show to the server, with or without its key.")
    key_file: Path | None = Field(default=None, description="The certificate's key.")
    timeout: Duration = Field(default=timedelta(seconds=30), description="How long an answer may take.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := self._problem():
            raise ValueError(problem)
        return self

    def _problem(self) -> str:
        """Say what does not fit together; empty where all does."""
        given = self.model_fields_set - {"url"}
        about_series = {"repeat", "title", "text", "severity", "labels"} & given
        problems = {
            f"url: it is missing; '{min(given, default='')}' is about the server that it names": self.url is None and given,
            f"query: it is missing; '{min(about_series, default='')}' is about its series": self.query is None and about_series,
            "user and password belong together": (self.user is None) != (self.password is None),
            "token: give it, or user and password": self.token is not None and self.user is not None,
            "key_file: its certificate is missing (cert_file)": self.key_file is not None and self.cert_file is None,
            "timeout: a duration above zero is expected": self.timeout <= timedelta(0),
        }
        return next((text for text, there in problems.items() if there), "")

    def headers(self) -> dict[str, str]:
        """Give the header that says who asks, where one is needed."""
        if self.token is not None:
            return {"authorization": f"Bearer {self.token.get_secret_value()}"}
        if self.user is not None and self.password is not None:
            pair = f"{self.user}:{self.password.get_secret_value()}"
            return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        return {}

    def tls(self) -> ssl.SSLContext:
        """Give what vouches for the server, and for us. Raises `ConfigError` where a file is not what it is to be."""
        context = ssl.create_default_context()
        try:
            if self.ca_file is not None:
                context.load_verify_locations(self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(f"ca_file, cert_file or key_file cannot be used ({type(error).__name__})") from None
        return context
