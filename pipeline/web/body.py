"""Reading a request's body within bounds of size; the server sees to its time (`web.protocol`)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

from starlette.types import Receive

from pipeline.web.answers import Refusal

_GZIP: Final = 16 + zlib.MAX_WBITS


async def read_body(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """Give the body, decompressed where it says `content-encoding: gzip`.

    Raises `Refusal`: 413 for more than `most` bytes, before or after decompressing, as soon as that is known; 415 for
    another encoding; 400 for what is not gzip or ends early.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip"}:
        raise Refusal(415, "the body may be compressed with gzip only", headers={"Accept-Encoding": "gzip"})
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        raise Refusal(400, "content-length is not a number")
    if int(length) > most:
        raise _too_large(most)
    body = await _collect(receive, most)
    return body if encoding == "identity" else _decompress(body, most)


async def _collect(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the connection was closed before the body was complete")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > most:
            raise _too_large(most)
    return b"".join(parts)


def _decompress(body: bytes, most: int) -> bytes:
    """Decompress one gzip member, never making more than `most` bytes; several could cost a time that grows with the square."""
    member = zlib.decompressobj(_GZIP)
    try:
        out = member.decompress(body, most + 1)
    except zlib.error:
        raise Refusal(400, "the body is not gzip, as its content-encoding says") from None
    if len(out) > most:
        raise _too_large(most)
    if not member.eof or member.unused_data:
        raise Refusal(400, "the body is not one whole gzip member")
    return out


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than {most} bytes (SIFTBELL_MAX_BODY)")
