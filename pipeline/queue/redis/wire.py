"""Writes and reads the items of a queue: kombu's envelope without the body as a line of JSON, and below it the body as it is.

What kombu's own transport writes, all of it as JSON, is read as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from kombu.utils.json import loads

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK: Final = "siftbell-failures"
"""The first key of an envelope that went back to its queue: how often it failed. The scripts write it."""


class UnreadableError(Exception):
    """This is not a message of kombu or Celery."""


def write(message: Mapping[str, Any]) -> bytes:
    """Give the item of a message of kombu's."""
    body = message["body"]
    head = {name: value for name, value in message.items() if name != "body"}
    return msgspec.json.encode(head) + b"\n" + (body.encode() if isinstance(body, str) else body)


def read(item: bytes) -> dict[str, Any]:
    """Give the envelope of an item; raises UnreadableError."""
    head, below, body = item.partition(b"\n")
    try:
        envelope = msgspec.json.decode(head) if below else loads(item)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnreadableError("it is not JSON") from error
    if not isinstance(envelope, dict):
        raise UnreadableError("it is no JSON object")
    envelope.setdefault("body", body)
    failures = envelope.pop(MARK, None)
    properties = envelope.get("properties")
    if not isinstance(properties, dict) or not isinstance(envelope.get("headers"), dict | None):
        raise UnreadableError("it has not the properties and headers of a task")
    info = properties.get("delivery_info")
    properties["delivery_info"] = (info if isinstance(info, dict) else {}) | {"redelivered": failures is not None}
    envelope["headers"] = (envelope.get("headers") or {}) | {"x-delivery-count": failures or 0}
    return envelope
