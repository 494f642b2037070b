"""Files that travel in a message: a filter puts them into its data, and a consumer that can send files attaches them.

They lie in `data.attachments`, each as `{"name": "rows.csv", "type": "text/csv", "gzip": "H4sI…"}`: what is in the file,
compressed and in base64; or in base64 alone, as `base64`, where that is no longer.
"""

from __future__ import annotations

import binascii
import gzip
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.errors import PermanentError
from pipeline.message import Message
from pipeline.text import shorten

MOST_BYTES: Final = 25 * 2**20
"""Bytes that the files of a message may have together. A text of few bytes may say gigabytes once it is decompressed."""
_UNNAMED: Final = "file"
_TYPE: Final = re.compile(r"(?!(?i:message|multipart)/)[\w.+-]+/[\w.+-]+", re.ASCII)
"""Not those of mails in mails, which no mail bears in base64."""
_UNKNOWN: Final = "application/octet-stream"
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u202a-\u202e\u2066-\u2069]')


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file: its name, its media type, and what is in it."""

    name: str
    type: str
    content: bytes


def attach(message: Message, attachments: Iterable[Attachment]) -> Message:
    """Give a copy of the message that bears these files, behind those that it bears already.

    Raises `PermanentError` where the message's data is neither an object nor nothing.
    """
    data = message.data
    if data is not None and not isinstance(data, dict):
        raise PermanentError("a message whose data is no object cannot bear attachments")
    data = data or {}
    there = data.get("attachments")
    entries = [*(there if isinstance(there, list) else ()), *map(_entry, attachments)]
    return message.replace(data={**data, "attachments": entries})


def attachments_of(message: Message) -> tuple[Attachment, ...]:
    """Give the files that a message bears, their names without what a file's name may not hold.

    A payload may have `attachments` of its own, in another shape: those are nobody's files. Raises `PermanentError` for what is
    neither base64 nor gzip where it should be, and for more than `MOST_BYTES`.
    """
    data = message.data
    return tuple(_files(data.get("attachments"))) if isinstance(data, dict) else ()


def _entry(attachment: Attachment) -> dict[str, str]:
    plain, packed = (
        b64encode(raw).decode() for raw in (attachment.content, gzip.compress(attachment.content, compresslevel=6, mtime=0))
    )
    content = {"gzip": packed} if len(packed) < len(plain) else {"base64": plain}
    return {"name": attachment.name, "type": attachment.type, **content}


def _files(entries: Any) -> Iterator[Attachment]:
    left = MOST_BYTES
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            continue
        way = next((way for way in ("gzip", "base64") if isinstance(entry.get(way), str)), None)
        if way is None:
            continue
        name = shorten(_FORBIDDEN.sub("_", entry["name"]).strip(" ."), 100) or _UNNAMED
        content = _content(entry, way, name, left)
        left -= len(content)
        yield Attachment(name, _type(entry), content)


def _type(entry: Mapping[str, Any]) -> str:
    kind = entry.get("type")
    return kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else _UNKNOWN


def _content(entry: Mapping[str, Any], way: str, name: str, most: int) -> bytes:
    try:
        raw = b64decode(entry[way], validate=True)
        content = raw if way == "base64" else _unpacked(raw, most)
    except (binascii.Error, ValueError, zlib.error):
        raise PermanentError(f"attachments: {name} is not {way}") from None
    if len(content) > most:
        raise PermanentError(f"attachments: more than {MOST_BYTES // 2**20} MiB together")
    return content


def _unpacked(raw: bytes, most: int) -> bytes:
    """Decompress as much as one byte more than there may be."""
    packed = zlib.decompressobj(wbits=31)
    content = packed.decompress(raw, most + 1)
    if len(content) <= most and not packed.eof:
        raise ValueError("it ends too early")
    return content
