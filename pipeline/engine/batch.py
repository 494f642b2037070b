"""The batch: several messages of one pipeline that stand at one place; the unit on the queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, Literal, Protocol
from uuid import UUID

import msgspec

from pipeline.errors import PermanentError
from pipeline.message import Message

PROCESS_QUEUE: Final = "in"
"""The queue of batches to filter; a filter with a `queue:` of its own has that one instead."""
DELIVER_QUEUE: Final = "out.{}"
"""The queue of batches for one consumer: messages that were filtered, or a few that are to be filtered there."""
MAX_PROCESS: Final = 500
MAX_DELIVER: Final = 100
MAX_AT_ONCE: Final = 500
"""Messages to deliver where the consumer takes batches: one call then has all of them, however many there are."""
MAX_BYTES: Final = 192 * 1024
"""A batch's size as JSON, about. One message may be larger, up to what the queue takes (`Queue.largest`)."""


class Batch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Messages and what is to be done with them; as JSON it is the only argument of both tasks.

    `process`: filter them, going on after the filter that `step` names (empty: from the first).
    `deliver`: give them to the consumer that `step` names, for the `attempt`-th time.
    `revision` is the configuration's under which they were accepted. `deaths` counts the workers that died over it.
    `claim` is that of the lanes that they stand first in; `attempt` and `deaths` are then told by the store.
    """

    job: Literal["process", "deliver"]
    queue: str
    pipeline: str
    step: str = ""
    messages: list[Message]
    attempt: int = 1
    revision: str = ""
    deaths: int = 0
    claim: str = ""

    def replace(self, **changes: Any) -> Batch:
        """Give a copy with these fields changed."""
        return msgspec.structs.replace(self, **changes)


# A message as it is read again but for two fields: `id` has to be a UUID, `data` may be anything and is only looked over.
Readable: Final = msgspec.defstruct(
    "Readable",
    [
        (field.name, {"id": UUID, "data": msgspec.Raw}.get(field.name, field.type), msgspec.NODEFAULT if field.required else None)
        for field in msgspec.structs.fields(Message)
    ],
    kw_only=True,
    gc=False,
)
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Batch)
_readable: Final = msgspec.json.Decoder(Readable)


def encode(batch: Batch) -> bytes:
    """Write a batch for the queue."""
    return _encoder.encode(batch)


def decode(text: bytes | str) -> Batch:
    """Read a batch from the queue; raises ValueError for what is not one."""
    try:
        return _decoder.decode(text)
    except RecursionError as error:  # it was written where the stack was less deep
        raise ValueError(str(error)) from error


def kept_form(message: object) -> bytes:
    """Give the JSON in which a message travels; raises ValueError for what could not be read again as a message."""
    try:
        text = _encoder.encode(message)
        _readable.decode(text)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        told = str(error)
        raise ValueError("its id is no UUID" if told.startswith("Invalid UUID") else told) from error
    return text


def refuse_unreadable(message: object) -> None:
    """Raise `PermanentError` for what a plugin gave as a message and nobody could read again behind the queue or in the store.

    One such message would spoil the batch it shares: a value of the wrong type, one that JSON cannot hold, a time without zone.
    """
    if not isinstance(message, Message):
        raise PermanentError(f"{type(message).__name__}, not a message")
    try:
        kept_form(message)
    except ValueError as error:
        raise PermanentError(f"a message that cannot be kept: {error}") from error
    if not isinstance(message.time, datetime):
        raise PermanentError("a message that cannot be kept: its time is no datetime")
    if message.time.tzinfo is None:
        raise PermanentError("a message that cannot be kept: its time has no zone")


def is_for_consumers(queue: str) -> bool:
    """Say whether a queue is that of a consumer."""
    return queue.startswith(DELIVER_QUEUE.format(""))


def too_large(batch: Batch, largest: int) -> str:
    """Say that a batch is larger than a queue takes, which only a message that stands alone can be; empty where it is not."""
    size = len(_encoder.encode(batch.messages[0])) if len(batch.messages) == 1 else 0  # several are no more than `MAX_BYTES`
    return f"a message of {size} bytes: the queue takes {largest}" if size > largest else ""


def split(messages: Sequence[Message], most: int) -> Iterator[list[Message]]:
    """Cut messages into lists of at most `most` messages and about `MAX_BYTES`, in order."""
    part: list[Message] = []
    size = 0
    for message in messages:
        weight = len(_encoder.encode(message))
        if part and (len(part) == most or size + weight > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(message)
        size += weight
    if part:
        yield part


class Queue(Protocol):
    """The broker, as the engine sees it."""

    largest: int
    """Bytes as JSON (`kept_form`) of the largest message that it surely takes."""

    def publish(self, batches: Sequence[Batch]) -> None:
        """Return when all batches are on their queues, durably. Raises `TemporaryError`, within a bounded time."""
