"""Several messages in one HTTP request: how many go together, and what becomes of each."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import ClassVar, Final

from pipeline.errors import TemporaryError
from pipeline.http import HttpConsumer, HttpRequest, UnacceptableError
from pipeline.message import Message
from pipeline.plugin import BatchConsumer, C

LONGEST: Final = 60.0
"""Seconds after which no further request of a call is begun; what is left is tried again."""


class HttpBatchConsumer(HttpConsumer[C], BatchConsumer[C]):
    """An `HttpConsumer` that sends several messages in one request: a subclass says what to send of them.

    What waits goes together, up to `at_once` messages and `body_limit` bytes; a message alone waits for no other. Where the other
    side refuses what it was sent (400, 413, 422), or no request can be made of it, it is sent in halves, until the message
    that it cannot take stands alone and is given up. What the other side says else holds for all messages of the
    request; after an error that may pass, no further request is made.
    """

    at_once: ClassVar[int] = 100
    """Messages in a request, at most."""
    body_limit: ClassVar[int] = 1024 * 1024
    """Bytes of a body, at most, where it holds more than one message."""

    @abstractmethod
    def request_for(self, messages: Sequence[Message]) -> HttpRequest:
        """Give the request that delivers the messages: computes only, and gives the same for the same messages."""

    def request(self, message: Message) -> HttpRequest:
        """Give the request that delivers a message alone."""
        return self.request_for([message])

    def limits(self) -> tuple[int, int]:
        """Give the messages and the bytes that a request may have; override it where options say so."""
        return self.at_once, self.body_limit

    async def consume_many(self, messages: Sequence[Message]) -> Mapping[str, Exception]:
        """Send the messages in as few requests as they fit into, one after the other."""
        most, size = self.limits()
        parts = deque(messages[start : start + most] for start in range(0, len(messages), most))
        failures: dict[str, Exception] = {}
        end = monotonic() + LONGEST
        while parts:
            part = parts.popleft()
            try:
                await self._send_part(part, size, end)
            except _HalvesError:
                middle = len(part) // 2
                parts.extendleft((part[middle:], part[:middle]))
            except TemporaryError as error:
                left = [*part, *(message for other in parts for message in other)]
                return failures | dict.fromkeys((message.id for message in left), error)
            except Exception as error:  # noqa: BLE001 - a refusal, or a bug, which costs no other message
                failures |= dict.fromkeys((message.id for message in part), error)
        return failures

    async def _send_part(self, part: Sequence[Message], size: int, end: float) -> None:
        if monotonic() > end:
            raise TemporaryError(f"the requests before it took longer than {LONGEST:.0f} s")
        try:
            request = self.request_for(part)
        except Exception:
            if len(part) > 1:
                raise _HalvesError from None
            raise
        if len(request.body) > size and len(part) > 1:
            raise _HalvesError
        try:
            await self.send(request)
        except UnacceptableError:
            if len(part) > 1:
                raise _HalvesError from None
            raise


class _HalvesError(Exception):
    """The messages are to be sent in two requests."""


def batch_key(messages: Sequence[Message]) -> str:
    """Give an idempotency key for messages: the id of one alone, else what is the same for these messages and no others."""
    if len(messages) == 1:
        return messages[0].id
    return hashlib.blake2b("\n".join(message.id for message in messages).encode(), digest_size=16).hexdigest()
