"""What all kinds of plugin share: options, and a life from `open` to `close`."""

from __future__ import annotations

from abc import ABC
from collections.abc import Awaitable
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from pipeline.networks import ANYWHERE, Networks


class Config(BaseModel):
    """A plugin's options. Subclass it; give every field a type and a `Field(description=…)`; secrets are `SecretStr`.

    `shorthand` names the field that a bare value stands for: `match: severity == "critical"` is
    `match: {condition: severity == "critical"}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    shorthand: ClassVar[str | None] = None


class NoOptions(Config):
    """The options of a plugin that has none."""


C = TypeVar("C", bound=Config)


class Plugin(ABC, Generic[C]):
    """What all kinds share: validated options in `self.config`, and a life from `open` to `close`.

    An instance is made once per process and pipeline step and may be used by several threads at once. It keeps
    nothing between messages that may not be lost: any worker can run any step. A plugin without options says
    `Consumer[NoOptions]`.
    """

    config_type: ClassVar[type[Config]] = NoOptions

    networks: Networks = ANYWHERE
    """Where the plugin may connect to, as the process's settings say. `HttpConsumer` keeps to it; a consumer that posts by
    another library does that inside of `with self.networks.guard():`. Outside of an engine nothing is refused."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the options' class from `Consumer[ThisConfig]`, so that it is named in one place."""
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            if isinstance(origin := get_origin(base), type) and issubclass(origin, Plugin):
                (config_type,) = get_args(base)
                if isinstance(config_type, type):
                    cls.config_type = config_type

    def __init__(self, config: C) -> None:
        self.config = config

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def open(self) -> None:
        """Called once before the first message, in the process that will use the plugin: open what is kept open."""

    def close(self) -> None:
        """Called once after the last message."""

    def probe(self) -> Awaitable[str | None] | str | None:
        """Ask the other side whether it is there and takes the credential, and send it nothing: `siftbell check --connect`.

        Called once, after `open`; as `def` in a thread, as `async def` on an event loop on which a consumer's `aclose` is awaited
        afterwards. Give a short line about who answered (`@oncall_bot`, `PostgreSQL 15.19`); None where there is nothing to ask.
        Raise `TemporaryError` where it does not answer now, `PermanentError` where it refuses. No text holds a secret.
        """
        return None
