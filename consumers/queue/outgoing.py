"""A message as it leaves for a foreign queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from consumers.queue.options import QueueConfig
from pipeline import Message, PermanentError, TemporaryError

Failures = dict[str, TemporaryError | PermanentError]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is sent of a message."""

    message: Message
    body: bytes
    headers: Mapping[str, str]
    routing_key: str


def write(message: Message, config: QueueConfig) -> Outgoing:
    """Render what is sent; raises `PermanentError` for what cannot be made."""
    routing_key = config.routing_key.render(message)
    if len(routing_key.encode()) > 255:
        raise PermanentError("routing_key: it is longer than the 255 bytes that AMQP takes")
    headers = {name: value.render(message) for name, value in config.headers.items()}
    return Outgoing(message, _body(message, config), headers, routing_key)


def _body(message: Message, config: QueueConfig) -> bytes:
    if config.body is None:
        return msgspec.json.encode(message)
    body = config.body.render(message).encode()
    if config.content_type.partition(";")[0].strip().lower() == "application/json":
        try:
            msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PermanentError(f"body: the template did not give JSON ({error}); write values by | tojson") from None
    return body
