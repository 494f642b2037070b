"""Where a URL leads, and a request there as the bytes that HTTP/1.1 has for it. It opens nothing and sends nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_SAFE: Final = "/%:@!$&'()*+,;=~?[]"
_FRAMING: Final = ("content-length", "transfer-encoding")
"""Headers that say where a request ends: that is for this module to say."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads: what to connect to, what to ask for there, and the headers that this takes."""

    tls: bool
    host: str
    port: int
    target: str
    headers: Mapping[str, str]


@lru_cache(maxsize=256)
def place_of(url: str) -> Place:
    """Read a URL; raises ValueError for what is none that can be sent to. The text of the error holds nothing of it."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme not in _PORTS or not host or not host.isprintable() or " " in host:
        raise ValueError("neither http:// nor https:// with a host")
    named = f"[{host}]" if ":" in host else host
    headers = {
        "host": named if port in {None, _PORTS[parts.scheme]} else f"{named}:{port}",
        "user-agent": "siftbell",
        "accept": "*/*",
        "accept-encoding": "identity",
    }
    if parts.username is not None or parts.password is not None:
        pair = unquote_to_bytes(parts.username or "") + b":" + unquote_to_bytes(parts.password or "")
        headers["authorization"] = f"Basic {b64encode(pair).decode()}"
    target = quote(parts.path or "/", _SAFE) + (f"?{quote(parts.query, _SAFE)}" if parts.query else "")
    return Place(parts.scheme == "https", host, port or _PORTS[parts.scheme], target, headers)


def written(method: str, place: Place, headers: Mapping[str, str], body: bytes) -> bytes:
    """Give a request's bytes. Headers given take the place of ours; raises ValueError for what has no UTF-8."""
    all_headers = {**place.headers, **{name.lower(): value for name, value in headers.items()}}
    for name in _FRAMING:
        all_headers.pop(name, None)
    lines = [f"{method} {place.target} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body
