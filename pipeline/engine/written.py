"""Messages written as JSON once, where they are accepted or filtered: what can be read again behind the queue goes there so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import Annotated, Final, NamedTuple, cast

import msgspec

from pipeline.engine.batch import MAX_BYTES, Readable
from pipeline.message import Message, Proven

TOGETHER: Final = 50
"""Messages of a request, or of a batch that was filtered, that are written in one go, and stay in one batch."""


class Written(NamedTuple):
    """The JSON of some messages, with commas between them."""

    text: bytes
    number: int


_time: Final = attrgetter("time")
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(list[Message])
_Zoned: Final = msgspec.defstruct(
    "_Zoned", [("time", Annotated[datetime, msgspec.Meta(tz=True)], None)], bases=(Readable,), gc=False
)
_readable: Final = msgspec.json.Decoder(list[_Zoned])  # type: ignore[valid-type] # made of `Message`'s fields


def write(messages: Sequence[Message], largest: int) -> list[Written] | None:
    """Write messages that can all be read again and stored; None where that cannot be said so soon of each of them.

    Of `Proven` messages that is believed, save of their labels, which a plugin may have changed. `largest`: the bytes of the
    largest message that the queue takes.
    """
    most = min(largest, MAX_BYTES)
    proven = isinstance(messages, Proven) and _label_types(messages) <= {str}
    pieces = []
    try:
        for start in range(0, len(messages), TOGETHER):
            some = messages[start : start + TOGETHER]
            text = _encoder.encode(some)
            if len(text) - 2 > most or _holds_nul(text) or not (proven or _read_again(some, text)):
                return None
            pieces.append(Written(text[1:-1], len(some)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return pieces


def read(piece: Written) -> list[Message]:
    """Give the messages that were written."""
    return _decoder.decode(b"[%b]" % piece.text)


def divide(pieces: Iterable[Written], most: int) -> Iterator[list[Message]]:
    """Give the `messages` of batches that are only put on the queue, each of at most `most` messages and `MAX_BYTES`.

    A piece that is larger stands alone.
    """
    part: list[bytes] = []
    size = count = 0
    for text, more in pieces:
        if part and (count + more > most or size + len(text) > MAX_BYTES):
            yield _as_messages(part)
            part, size, count = [], 0, 0
        part.append(text)
        size += len(text)
        count += more
    if part:
        yield _as_messages(part)


def _read_again(messages: Sequence[Message], text: bytes) -> bool:
    if set(map(type, messages)) != {Message} or set(map(type, map(_time, messages))) != {datetime}:
        return False
    return len(_readable.decode(text)) == len(messages)


def _label_types(messages: Sequence[Message]) -> set[type]:
    return set(map(type, chain.from_iterable(message.labels.values() for message in messages)))


def _holds_nul(text: bytes) -> bool:
    return b"\\" in text and b"\\u0000" in text  # the first is fifty times as fast, and mostly tells


def _as_messages(texts: Iterable[bytes]) -> list[Message]:
    return cast("list[Message]", [msgspec.Raw(text) for text in texts])
