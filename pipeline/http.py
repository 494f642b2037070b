"""HTTP out: a consumer says what to send, and this sends it, with one set of rules for answers and retries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.message import Message
from pipeline.plugin import C, Consumer


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to send: the body as bytes with its `content-type` among the headers."""

    url: str
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpConsumer(Consumer[C]):
    """A consumer whose delivery is one HTTP request."""

    @abstractmethod
    def request(self, message: Message) -> HttpRequest:
        """Give the request that delivers the message: computes only, and gives the same for the same message."""

    async def consume(self, message: Message) -> None:
        """Send the request."""
        raise NotImplementedError
