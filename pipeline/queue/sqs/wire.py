"""How a message looks on SQS: kombu's envelope as JSON, compressed, in base64."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any, Final

from kombu.utils.json import dumps, loads

MOST_BYTES: Final = 1024 * 1024
"""Bytes that SQS takes in one message, and in one request that sends several."""

LARGEST: Final = 640 * 1024
"""Bytes as JSON of a message that SQS surely takes. The worst that a test found, letters of all scripts at random, becomes 1.57
times as large; what people write becomes smaller."""


def pack(envelope: dict[str, Any]) -> str:
    """Write kombu's envelope as the body of a message on SQS, which takes neither control characters nor U+FFFE."""
    return base64.b64encode(zlib.compress(dumps(envelope).encode(), level=3)).decode()


def unpack(body: str) -> dict[str, Any]:
    """Read what `pack` wrote; anything else becomes a message without headers, which Celery reports and removes."""
    try:
        envelope = loads(zlib.decompress(base64.b64decode(body, validate=True)).decode())
    except (binascii.Error, zlib.error, ValueError):
        envelope = None
    if isinstance(envelope, dict) and isinstance(envelope.get("properties"), dict):
        return envelope
    return {"body": body, "headers": {}, "properties": {}, "content-type": "text/plain", "content-encoding": "utf-8"}
