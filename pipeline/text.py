"""Texts that have to fit: what another system refuses as too long is cut at its end, with a mark."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, Literal

Unit = Literal["characters", "utf-16", "bytes"]

_WIDTHS: Final[dict[Unit, tuple[str, int]]] = {"characters": ("utf-32-le", 4), "utf-16": ("utf-16-le", 2), "bytes": ("utf-8", 1)}


def shorten(text: str, most: int, *, unit: Unit = "characters", mark: str = "…") -> str:
    """Give the text where it has at most `most` units, else as much of its beginning as fits together with `mark`.

    Units are characters, UTF-16 code units (as JavaScript and Telegram count) or bytes of UTF-8. No character is cut in two.
    """
    encoding, width = _WIDTHS[unit]
    encoded = text.encode(encoding, errors="surrogatepass")
    if len(encoded) <= most * width:
        return text
    room = max(0, most * width - len(mark.encode(encoding)))
    return encoded[:room].decode(encoding, errors="ignore").rstrip() + mark


def shorten_key(key: str, most: int) -> str:
    """Give a key where it has at most `most` characters, else its beginning and a hash of all of it: never two keys the same."""
    if len(key) <= most:
        return key
    digest = blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{key[: most - len(digest) - 1]}~{digest}"
