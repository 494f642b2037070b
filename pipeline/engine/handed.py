"""What requests hand in to be published: how it becomes batches, and how those who wait are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.engine.batch import Batch
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.routes import FEW, FEW_BYTES, first_batch, most_at_first
from pipeline.engine.written import Written, divide, read
from pipeline.message import Message


@dataclass(slots=True)
class Handed:
    """The messages of one request, as they were written, and the future that is done when they are accepted.

    As messages they are not kept: thousands that wait at a time are too many for the processor's caches.
    """

    pipeline: Pipeline
    producer: str
    written: Sequence[Written]
    number: int
    """How many messages they are."""
    accepted: asyncio.Future[None]


Group = list[Handed]
"""What was handed in for one pipeline."""


def apart(handed: Sequence[Handed]) -> Iterator[list[Group]]:
    """Give what is to stand in line, then what goes to the queue: the broker may keep a thread for good, the store does not."""
    by_pipeline: dict[str, Group] = {}
    for one in handed:
        by_pipeline.setdefault(one.pipeline.spec.name, []).append(one)
    for ordered in (True, False):
        if some := [group for group in by_pipeline.values() if group[0].pipeline.spec.ordered is ordered]:
            yield some


def count(handed: Iterable[Handed]) -> int:
    """Give the number of messages."""
    return sum(one.number for one in handed)


def messages_of(group: Group) -> list[Message]:
    """Give a group's messages, in the order in which they were handed in."""
    return [message for one in group for piece in one.written for message in read(piece)]


def batches(group: Group) -> list[Batch]:
    """Give the batches that bring a group to its pipeline's first filters, or to its consumer."""
    pipeline = group[0].pipeline
    pieces = [piece for one in group for piece in one.written]
    few = count(group) <= FEW and sum(len(piece.text) for piece in pieces) <= FEW_BYTES
    return [first_batch(pipeline, part, few=few) for part in divide(pieces, most_at_first(pipeline))]


def settle(handed: Sequence[Handed], error: Exception | None) -> None:
    """Tell all who wait what became of their messages, each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for one in handed:
        by_loop.setdefault(one.accepted.get_loop(), []).append(one.accepted)
    for loop, waiting in by_loop.items():
        with suppress(RuntimeError):  # it is closed: nobody waits any more
            loop.call_soon_threadsafe(_tell, waiting, error)


def _tell(waiting: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for accepted in waiting:
        if accepted.done():  # whoever waited has given up
            continue
        if error is None:
            accepted.set_result(None)
        else:
            accepted.set_exception(error)
