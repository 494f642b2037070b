"""The options of `logstash`, and where its `url` leads."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from pipeline import Config, ConfigError, Template

_PORTS: Final = {
    **dict.fromkeys(("tcp", "tls", "udp"), None),
    **dict.fromkeys(("beats", "beats+tls"), 5044),
    "http": 80,
    "https": 443,
    **dict.fromkeys(("redis", "rediss"), 6379),
}
_GOES_WITH: Final = {
    "confirm": ("tcp", "tls"),
    "key": ("redis", "rediss"),
    **dict.fromkeys(("ca_file", "cert_file", "key_file"), ("tls", "beats+tls")),
}
_FULL: Final = ("http", "https", "redis", "rediss")
"""Schemes whose URLs may have a user and a path."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where events go."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"Logstash at {host}:{self.port}"


def _target(url: str) -> Target:
    """Read a URL; raises ValueError that repeats nothing of it, for a password may be in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as the sockets do
    except ValueError:
        raise ValueError("this is no URL such as tcp://logstash.example.com:5000") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"a URL is expected that begins with one of {', '.join(f'{scheme}://' for scheme in _PORTS)}")
    port = port or _PORTS[parts.scheme]
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if port is None:
        raise ValueError("the URL names no port, as in tcp://logstash.example.com:5000")
    if parts.scheme not in _FULL and (parts.username or parts.path.strip("/") or parts.query):
        raise ValueError(f"a URL that begins with {parts.scheme}:// has a host and a port, and nothing else")
    if parts.scheme.startswith("redis") and find_spec("redis") is None:
        raise ValueError('a package is missing: pip install "siftbell[redis]"')
    return Target(parts.scheme, parts.hostname, port)


def _usable(url: SecretStr) -> SecretStr:
    _target(url.get_secret_value())
    return url


def _own(name: str) -> str:
    if name in ("@timestamp", "@version", "@metadata"):
        raise ValueError(f"{name} cannot be set here")
    return name


class LogstashConfig(Config):
    """The options of `logstash`."""

    shorthand: ClassVar[str | None] = "url"

    url: Annotated[SecretStr, AfterValidator(_usable)] = Field(
        description="Where events go, and how: tcp://, tls://, udp://, http://, https://, redis://, rediss://, beats:// or "
        "beats+tls://, a host and a port. Kept secret, as it may hold a password."
    )
    ecs: bool = Field(default=False, description="Name the fields as the Elastic Common Schema does.")
    data: bool = Field(default=True, description="Send the payload as it came along.")
    fields: dict[Annotated[str, AfterValidator(_own)], Template] = Field(
        default_factory=dict, description="More fields of the event; those that come out empty are left out."
    )
    key: str = Field(default="logstash", min_length=1, description="With Redis: the list's key.")
    confirm: bool = Field(
        default=True,
        description="With tcp:// and tls://: end the connection after each batch, and wait until the other side has read it.",
    )
    ca_file: Path | None = Field(default=None, description="Certificates of authorities that are trusted as well, as PEM.")
    cert_file: Path | None = Field(default=None, description="A certificate to show, as PEM, with its key or without.")
    key_file: Path | None = Field(default=None, description="The key of `cert_file`, where it is not in that file.")
    connections: int = Field(default=4, ge=1, le=50, description="How many connections a process has at once at most.")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        for name in self.model_fields_set & _GOES_WITH.keys():
            if self.target.scheme not in _GOES_WITH[name]:
                raise ValueError(f"{name} goes with {' and '.join(f'{scheme}://' for scheme in _GOES_WITH[name])}")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file goes with `cert_file`")
        return self

    @property
    def target(self) -> Target:
        """Where the URL leads."""
        return _target(self.url.get_secret_value())

    def tls(self) -> ssl.SSLContext | None:
        """Give what TLS needs, where the URL says TLS; raises `ConfigError` for files that cannot be read."""
        if not self.target.scheme.endswith("tls"):
            return None
        context = ssl.create_default_context()
        name = "ca_file"
        try:
            if self.ca_file is not None:
                context.load_verify_locations(self.ca_file)
            name = "cert_file"
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file, password=lambda: b"")
        except (OSError, ValueError) as error:  # ssl's errors are of the first class
            raise ConfigError(f"{name} holds nothing that can be read as PEM ({type(error).__name__})") from None
        return context
