"""Reads items of a queue: kombu's envelope, with the mark of what was delivered before."""

from __future__ import annotations

from typing import Any, Final

from kombu.utils.json import loads

MARK: Final = "siftbell-failures"
"""The first key of an envelope that went back to its queue: how often it failed. The scripts write it."""


class UnreadableError(Exception):
    """This is not a message of kombu or Celery."""


def read(item: bytes) -> dict[str, Any]:
    """Give the envelope of an item; raises UnreadableError."""
    try:
        envelope = loads(item.decode())
    except (ValueError, RecursionError) as error:
        raise UnreadableError("it is not JSON") from error
    if not isinstance(envelope, dict):
        raise UnreadableError("it is no JSON object")
    failures = envelope.pop(MARK, None)
    properties = envelope.get("properties")
    if not isinstance(properties, dict) or not isinstance(envelope.get("headers"), dict | None):
        raise UnreadableError("it has not the properties and headers of a task")
    info = properties.get("delivery_info")
    properties["delivery_info"] = (info if isinstance(info, dict) else {}) | {"redelivered": failures is not None}
    envelope["headers"] = (envelope.get("headers") or {}) | {"x-delivery-count": failures or 0}
    return envelope
