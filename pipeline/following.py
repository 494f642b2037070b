"""Later messages of a key: they change or answer what the first one became on the other side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import Memory

REMEMBERED: Final = timedelta(days=30)
"""For so long after the last message of a key its first one is known."""


class GoneError(PermanentError):
    """What was to be changed or answered is not there any more, or may not be changed; `follow` begins anew."""


async def follow(
    message: Message,
    memory: Memory | None,
    post: Callable[[Message], Awaitable[str]],
    follow_up: Callable[[Message, str], Awaitable[None]],
    *,
    to: str = "",
) -> None:
    """Post a message, or follow up on the first one of its key where that is known.

    `post` gives what the other side calls the message (nothing where it does not say), by which `follow_up` changes or answers
    it; where that raises `GoneError` the message is posted. A resolved message is the last of its key: the next one is posted
    again. Without a key or a memory each one is. `to` says where the message goes, where that differs from one to the next: then
    each place has a first message of its own. Raises what the two raise, and `TemporaryError` where the memory is away before
    anything was sent.
    """
    if not message.key or memory is None:
        await post(message)
        return
    name = f"{message.key}\n{to}" if to else message.key
    place, followed = await asyncio.to_thread(memory.recall, name), False
    if place:
        with suppress(GoneError):
            await follow_up(message, place)
            followed = True
    if not place or not followed:
        place = await post(message)
    with suppress(TemporaryError):  # the other side has the message; what is not remembered costs a thread
        if message.status == "resolved":
            await asyncio.to_thread(memory.forget, name)
        else:
            await asyncio.to_thread(memory.remember, name, place, REMEMBERED)
